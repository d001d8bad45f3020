"""Tokens that stand for tokens: words stay aligned whatever their numbers of tokens."""

import pytest
import torch

from coursekit.nets import tiny
from coursekit.nets.words import common, pieces, refine, replaced, swap, tokens

SD = tiny.latent()  # every letter is a token
PAIRS = [("a cat sits here", "a horse sits here"), ("a horse sits here", "a cat sits here"),
         ("a cat.", "a dog."), ("a cat", "a cat"), ("", ""), ("a bee, a cat", "a cat, a bee")]


def span(sentence: str, word: str) -> list[int]:
    return tokens(SD, sentence, word, "word")


def end(sentence: str) -> int:
    return len(SD.tokenizer(sentence)["input_ids"]) - 1


@pytest.mark.parametrize(("prompt", "target"), PAIRS)
def test_a_swap_sends_every_map_somewhere_and_words_to_words(prompt, target):
    """Rows sum to 1, columns of a target word to (its source's tokens) / (its own)."""
    mapping = swap(SD, prompt, target)
    assert torch.allclose(mapping.R.sum(1), torch.ones(SD.context)) and not mapping.own.any()
    for (_, I), (_, J) in zip(pieces(SD, prompt), pieces(SD, target), strict=True):
        block = mapping.R[I][:, J]
        assert torch.allclose(block.sum(0), torch.full((len(J),), len(I) / len(J)))
        assert torch.allclose(block.sum(1), torch.ones(len(I)))  # so nothing is left for others
        if len(I) == len(J):
            assert torch.equal(block, torch.eye(len(I)))


@pytest.mark.parametrize(("prompt", "target"), PAIRS[:2])
def test_words_after_a_swap_of_unequal_length_keep_their_maps(prompt, target):
    """The official mapper gives 'sits' the map of 'here' and 'here' that of the end."""
    R = swap(SD, prompt, target).R
    for word in ("a", "sits", "here"):
        assert torch.equal(R[span(prompt, word)][:, span(target, word)],
                           torch.eye(len(span(prompt, word))))
    i, j = end(prompt), end(target)
    n = SD.context - max(i, j)
    assert torch.equal(R[i:i + n, j:j + n], torch.eye(n))  # end to end, padding to padding
    assert R[i + n:, -1].sum() == max(0, j - i) and not R[:, j + n:].any()


def test_what_a_mapping_of_the_same_sentence_is():
    for mapping in (swap(SD, "a cat, a bee", "a cat, a bee"), refine(SD, "A cat", "a CAT")):
        assert torch.equal(mapping.R, torch.eye(SD.context)) and not mapping.own.any()


@pytest.mark.parametrize(("prompt", "target", "new"), [
    ("a cat sits", "a big cat sits", "big"), ("a cat sits", "a cat sits here", "here"),
    ("a cat.", "a cat with a hat.", "with a hat"), ("a cat", "a dog", "dog")])
def test_refining_gives_old_words_their_maps_and_new_ones_their_own(prompt, target, new):
    mapping = refine(SD, prompt, target)
    J = span(target, new)
    n = end(target)
    assert mapping.own[:n].nonzero().flatten().tolist() == J and not mapping.R[:, J].any()
    for word, I in pieces(SD, prompt):
        if word.isalpha() and prompt.split().count(word) == target.split().count(word) == 1:
            assert torch.equal(mapping.R[I][:, span(target, word)], torch.eye(len(I)))
    assert torch.equal(mapping.R.sum(0), 1 - mapping.own)  # one source each, or none


def test_padding_of_a_shorter_sentence_takes_no_map_of_a_word():
    """The official aligner gives the first padding the source's end, and maps of words before."""
    prompt, target = "a big cat sits", "a cat"
    mapping = refine(SD, prompt, target)
    i, j = end(prompt), end(target)
    n = SD.context - i
    assert torch.equal(mapping.R[i:, j:j + n], torch.eye(n))
    assert not mapping.R[:, j + n:].any() and mapping.own[j + n:].all()


def test_common_is_the_longest_that_grows():
    assert common(list("abcbdab"), list("bdcaba"))[-1][0] < 7
    assert len(common(list("abcbdab"), list("bdcaba"))) == 4
    assert common(list("abc"), list("abc")) == [(0, 0), (1, 1), (2, 2)]
    assert common([], ["a"]) == common(["a"], ["b"]) == []
    pairs = common("a photo of a cat".split(), "a drawing of a small cat".split())
    assert pairs == [(0, 0), (2, 2), (3, 3), (4, 5)]


def test_a_word_is_found_beside_marks_in_capitals_and_as_a_phrase():
    sentence = "a (Red) t-shirt, a cat."
    assert [p for p, _ in pieces(SD, sentence)] == ["a", "(", "Red", ")", "t-shirt", ",", "a",
                                                    "cat", "."]
    assert span(sentence, "cat") == span(sentence, "CAT.")[:-1] and len(span(sentence, "cat")) == 3
    assert span(sentence, "a cat")[1:] == span(sentence, "cat")
    assert len(span(sentence, "t-shirt")) == 7
    assert replaced(sentence, "cat", "small dog") == "a (Red) t-shirt, a small dog."
    assert replaced(sentence, "red) t-shirt", "") == "a (, a cat."


@pytest.mark.parametrize("call, words", [
    (lambda: span("a cat", "dog"), "word: 'dog' is 0 times in 'a cat': accepted is"),
    (lambda: span("a cat, a dog", "a"), "word: 'a' is 2 times in 'a cat, a dog'"),
    (lambda: span("concatenate", "cat"), "word: 'cat' is 0 times"),
    (lambda: span("a cat", ""), "word: '' is 0 times"),
    (lambda: replaced("a cat and a cat", "cat", "dog"), "old: 'cat' is 2 times"),
    (lambda: replaced("a cat", "dog", "bee"), "old: 'dog' is 0 times in 'a cat'"),
    (lambda: swap(SD, "a cat", "a big cat"), "target='a big cat' is not prompt='a cat' word for"),
    (lambda: swap(SD, "a big cat", "a cat."), "target='a cat.' is not prompt='a big cat' word"),
    (lambda: swap(SD, "a cat", ""), "target='' is not prompt='a cat'"),
])  # fmt: skip
def test_a_wrong_word_is_named(call, words):
    with pytest.raises(ValueError) as refusal:
        call()
    assert str(refusal.value).startswith(words) and "\n" not in str(refusal.value)
