"""Text as tokens: how the scripted model cuts, counts and invents words."""

import re

_PIECE = re.compile(r"\s*\S{1,8}|\s+")

# Some words have characters of two, three and four bytes, so that whoever mixes up bytes and characters is found out.
_VOCABULARY = """
river stone cloud leaf amber tide ember field grove harbor island jade lantern meadow night orchard
pebble quartz ridge shore timber valley willow yarrow café naïve niño straße 雪 🌲 солнце thunder
anchor breeze copper dune eagle fern glacier heron ivory juniper kelp lagoon maple nectar opal prairie
quill reef saffron tundra umber violet walnut zephyr birch cedar dawn elm frost garnet hazel indigo
"""
_WORDS = _VOCABULARY.split()


def pieces(text: str) -> list[str]:
    """`text` cut into tokens; joined again they are `text`. Long words are cut inside."""
    return _PIECE.findall(text)


def count_words(text: str) -> int:
    """How many prompt tokens `text` counts as."""
    return len(text.split())


def filler(seed: int, count: int) -> list[str]:
    """Exactly `count` tokens that differ from each other and, for other seeds, from other replies.

    The first token carries the seed; each later one its number. Every fifth continues the word before it, and
    every twelfth ends a sentence.
    """
    size = len(_WORDS)
    shift, step = seed % size, (seed >> 8) % size | 1
    words = [f" {_WORDS[(shift + step * place) % size]}" for place in range(size)]
    made = [f"{words[number % size]}{number}" for number in range(count)]
    made[:1] = [f"{word[1:]}-{seed:08x}" for word in words[:1] if count]
    made[5::5] = [token[1:] for token in made[5::5]]
    made[11::12] = [f"{token}." for token in made[11::12]]
    return made
