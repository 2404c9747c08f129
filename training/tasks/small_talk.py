"""Small talk without images, and saying so when a question lies outside the model's world."""

from random import Random

from training.sample import Asked
from training.tasks import chinese
from training.tasks.scenes import OUTSIDE
from training.world import COLORS, SHAPES

NAME = "Tessera Tiny"
NO_IMAGE = "I see no image. Please send one."

_SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello", "Hi", "Hello!", "Hi there", "Hey", "Good morning", "Hi!", "Good evening"),
        "Hello! Send me an image or a short video and ask about it.",
    ),
    (
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Introduce yourself.",
            "Tell me your name.",
            "who are you",
            "Who am I talking to?",
        ),
        f"I am {NAME}, a very small vision-language model.",
    ),
    (
        (
            "What can you do?",
            "What do you know?",
            "Help",
            "How can you help me?",
            "What can I ask you?",
            "What are you good at?",
        ),
        "I can describe simple images: colors, shapes, sizes, positions and counts. "
        "I can read printed words, numbers and handwritten digits, and follow short videos.",
    ),
    (("Thanks", "Thank you", "Thanks!", "Thank you!", "Thank you very much."), "You are welcome."),
    (("Goodbye", "Bye", "See you", "Bye!", "Good night"), "Goodbye!"),
    (("How are you?", "How are you doing?", "How do you do?"), "I am fine, thank you. What shall I look at?"),
    (
        ("Are you human?", "Are you a person?", "Are you a human?"),
        f"No. I am {NAME}, a very small vision-language model.",
    ),
    (("Which colors do you know?", "What colors can you see?"), f"I know {', '.join(COLORS)}."),
    (("Which shapes do you know?", "What shapes can you see?"), f"I know these shapes: {', '.join(SHAPES)}."),
)
_BEYOND = (
    "What is the capital of France?",
    "Who won the world cup?",
    "Write a poem.",
    "What is 12 times 7?",
    "What is the meaning of life?",
    "Translate this to German.",
    "Tell me a joke.",
    "What time is it?",
    "Who is the president?",
    "How do I cook rice?",
    "Write a Python function.",
    "What is the weather tomorrow?",
    "Recommend a book.",
    "How far is the moon?",
    "Explain gravity.",
    "Summarize the news.",
    "What is the price of gold?",
    "Who wrote Hamlet?",
    "Solve this equation.",
    "What should I eat today?",
)


def talk_sample(rng: Random) -> list[Asked]:
    """A text-only question and its answer."""
    if rng.random() < 0.3:
        return [_in_chinese(rng)]
    kind = rng.random()
    if kind < 0.6:
        questions, answer = rng.choice(_SMALL_TALK)
        return [Asked("talk", rng.choice(questions), answer)]
    if kind < 0.85:
        return [Asked("talk", rng.choice(_BEYOND), OUTSIDE)]
    color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
    question = rng.choice(
        (
            f"What color is the {shape}?",
            f"Where is the {color} {shape}?",
            f"Find the {color} {shape}.",
            "Describe the image.",
            "What do you see?",
            "How many objects are there?",
            "What is written here?",
        )
    )
    return [Asked("talk", question, NO_IMAGE)]


def _in_chinese(rng: Random) -> Asked:
    kind = rng.random()
    if kind < 0.6:
        questions, answer = rng.choice(chinese.SMALL_TALK)
        return Asked("talk, Chinese", rng.choice(questions), answer)
    if kind < 0.85:
        return Asked("talk, Chinese", rng.choice(chinese.BEYOND), chinese.OUTSIDE)
    question = rng.choice(
        ("描述这张图片。", f"{rng.choice(list(chinese.SHAPES.values()))}是什么颜色？", "有几个物体？")
    )
    return Asked("talk, Chinese", question, chinese.NO_IMAGE)
