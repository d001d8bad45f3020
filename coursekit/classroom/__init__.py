"""What teaching needs on top of the methods: metrics, and later pictures, widgets and checks."""
