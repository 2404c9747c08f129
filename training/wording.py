"""Questions as people type them: without capitals or marks, with courtesies, with a slip of the finger."""

from random import Random

_COURTESIES = ("Please: {}", "Hey, {}", "Can you tell me: {}", "{} Thanks!", "I wonder. {}", "Look at this. {}")
_CARELESS, _UNMARKED, _COURTEOUS, _SLIP = 0.25, 0.2, 0.07, 0.08
_LEAST_LETTERS = 5
"""Of a word that a finger slips in; in shorter ones a slip may make another word."""


def vary(rng: Random, question: str) -> str:
    """The question, or most often some less careful form of it."""
    if rng.random() < _COURTEOUS:
        question = rng.choice(_COURTESIES).format(question)
    if rng.random() < _SLIP:
        question = _slip(rng, question)
    if rng.random() < _UNMARKED:
        question = question.rstrip("?.!？。！")
    return question.lower() if rng.random() < _CARELESS else question


def _slip(rng: Random, question: str) -> str:
    words = question.split(" ")
    long = [index for index, word in enumerate(words) if len(word) >= _LEAST_LETTERS and word.isascii()]
    if not long:
        return question
    which = rng.choice(long)
    word, at = words[which], rng.randint(1, len(words[which]) - 3)
    match rng.randrange(3):
        case 0:
            words[which] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case 1:
            words[which] = word[:at] + word[at + 1 :]
        case _:
            words[which] = word[:at] + word[at] + word[at:]
    return " ".join(words)
