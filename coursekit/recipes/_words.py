"""The words of the text models: a byte-pair tokenizer trained on the captions.

A genuine CLIPTokenizer with CLIP's own alphabet, the 256 bytes alone and at the end of a word, so
that any text has tokens. The merges stop before every word is whole: frequent words are one token,
rare ones two or more ("cat" is ca|t), and whoever edits by words must align their tokens.
"""

import json
from functools import cache

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from coursekit import portraits
from coursekit.portraits.captions import NAMED, phrases

CONTEXT = 48  # tokens: the longest of 48,000 captions that name all they can has 47
MERGES, CAPTIONS, SEED = 300, 2000, 0
SIZE = 2 * 256 + MERGES + 2  # tokens: bytes, merges, start and end
END = "</w>"


def tokenizer() -> CLIPTokenizer:
    """The same one every time, SIZE tokens; CONTEXT is its `model_max_length`.

    `init_kwargs["words"]`, which is saved and loaded with it, lists the words of all captions.
    """
    merges = _merges()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + END for letter in letters), *(a + b for a, b in merges),
              "<|startoftext|>", "<|endoftext|>"]  # the end last: CLIP looks for the highest
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges,
                         model_max_length=CONTEXT, words=words())


def words() -> list[str]:
    """Every word that a caption can hold, sorted."""
    said = (text for name in NAMED for texts in phrases(name).values() for text in texts)
    return sorted({"a", *" ".join(said).split()})


@cache
def _merges() -> list[tuple[str, str]]:
    generator = torch.Generator().manual_seed(SEED)
    people = portraits.sample(CAPTIONS, generator)
    texts = [c.text for c in portraits.caption(people, generator, details=len(NAMED))]
    blank = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix=END))
    learner.normalizer, learner.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    learner.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=2 * 256 + MERGES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix=END, show_progress=False))
    found = json.loads(learner.to_str())["model"]["merges"]
    return [(a, b) for a, b in found[:MERGES]]
