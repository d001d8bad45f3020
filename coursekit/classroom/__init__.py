"""What teaching needs on top of the methods: metrics, pictures, explorers, and checks."""
