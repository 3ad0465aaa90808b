"""Texts that are about something: sentences of real collections put together anew, or made of a vocabulary of topics.

The collections lie in ``../shared/data`` beside the checkout, or where LOAM_BENCH_DATA says: ``scifact/corpus.jsonl``
in BEIR's layout and ``chunking/*.md``. Where there are none, words are drawn by Zipf's law, half from the topic's own.
"""

import os
import re
from functools import cache
from pathlib import Path

import numpy as np
import orjson

_DATA = Path(os.environ.get("LOAM_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_TOPICS, _TOPIC_SENTENCES, _TOPIC_WORDS, _COMMON_WORDS = 2000, 40, 60, 3000


def passages(count: int, sentences: int, seed: int) -> list[str]:
    """Different texts of so many sentences: all but one from one topic, in any order."""
    random, topics = np.random.default_rng(seed), _topics()
    texts: dict[str, None] = {}
    while len(texts) < count:
        own, other = (topics[number] for number in random.integers(len(topics), size=2))
        chosen = [own[number] for number in random.integers(len(own), size=sentences - 1)]
        chosen.insert(int(random.integers(sentences)), other[int(random.integers(len(other)))])
        texts[" ".join(chosen)] = None
    return list(texts)


@cache
def _topics() -> list[list[str]]:
    found = [_sentences(text) for text in _collections()]
    return [topic for topic in found if len(topic) >= 3] or _made()


def _collections() -> list[str]:
    abstracts, files = _DATA / "scifact" / "corpus.jsonl", sorted((_DATA / "chunking").glob("*.md"))
    texts = []
    if abstracts.exists():
        texts += [row["title"] + ". " + row["text"] for row in map(orjson.loads, abstracts.read_bytes().splitlines())]
    for file in files:
        text = file.read_text()
        texts += [text[start : start + 4000] for start in range(0, len(text), 4000)]
    return texts


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in _SENTENCE.split(text) if 20 < len(sentence) < 600]


def _made() -> list[list[str]]:
    random = np.random.default_rng(1)
    syllables = [first + second for first in "bdfgklmnprstv" for second in ("a", "e", "i", "o", "u", "al", "en", "or")]

    def words(count: int) -> list[str]:
        return ["".join(random.choice(syllables, size=int(random.integers(2, 5)))) for _ in range(count)]

    common = words(_COMMON_WORDS)
    return [_made_topic(random, common, words(_TOPIC_WORDS)) for _ in range(_TOPICS)]


def _made_topic(random: np.random.Generator, common: list[str], own: list[str]) -> list[str]:
    def word() -> str:
        vocabulary = own if random.random() < 0.5 else common
        return vocabulary[min(int(random.zipf(1.3)), len(vocabulary)) - 1]

    return [" ".join(word() for _ in range(int(random.integers(8, 20)))) + "." for _ in range(_TOPIC_SENTENCES)]
