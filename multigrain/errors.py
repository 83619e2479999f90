"""The one family of errors a user can cause."""


class MultiGrainError(Exception):
    """A fault the user can cure: the message says what, which value, and what to do."""


class EmbeddingError(MultiGrainError):
    """A model that returned something which is not an embedding."""
