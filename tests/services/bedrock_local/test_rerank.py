"""The stand-in's reranker reads words and meaning, and its searches are the question's own words."""

import pytest

from loam_bedrock_local.ranking import rerank
from loam_bedrock_local.searches import searches

TEXTS = [
    "Vacation is granted to all members of staff.",
    "The form E-1187 is for parking.",
    "Everybody gets 25 days of paid leave.",
    "",
]


@pytest.mark.parametrize(
    ("query", "best"), [("form E-1187", 1), ("How many days of leave?", 2), ("a place for my car", 1)]
)
def test_the_text_that_answers_comes_first_by_its_words_or_by_what_it_means(embedder, query, best):
    scores = rerank(embedder, query, TEXTS)
    assert scores.index(max(scores)) == best
    assert all(0 <= score <= 1 for score in scores)
    assert scores == rerank(embedder, query, TEXTS)


@pytest.mark.parametrize(
    ("question", "earlier", "found"),
    [
        ("How many days of paid leave?", "", ["many days paid leave"]),
        ("Who wears a red badge, and where is room 7?", "", ["wears red badge room 7", "wears red badge", "room 7"]),
        (
            "When do they expire?",
            "User: How many days of leave?\nAssistant: 25.",
            ["many days leave expire", "expire"],
        ),
        ("Why?", "", ["Why?"]),
    ],
)
async def test_searches_are_the_words_that_carry_meaning(answer, question, earlier, found):
    assert searches(question, earlier) == found
    system = "Turn the question into searches for an index: up to three, one to a line, and nothing else."
    before = f'<source name="earlier">\n{earlier}\n</source>\n\n' if earlier else ""
    prompt = f'{before}<source name="question">\n{question}\n</source>\n\nSearches:'
    assert (await answer(prompt, system)).splitlines() == found


async def test_an_answer_that_is_not_in_the_sources_begins_as_it_is_asked_to(answer):
    rule = "Cite as [1]. If the sources do not hold the answer, begin with [0] and say so."
    said = await answer('<source id="1">Parking costs 5 euros.</source>\n\nQuestion: Who won the cup?', rule)
    assert said.startswith("[0] I could not find")


async def test_what_has_no_number_beside_what_has_one_is_not_quoted(answer):
    prompt = (
        '<source name="earlier answer">Parking costs 9 euros.</source>\n\n'
        '<source id="1">Parking costs 5 euros.</source>\n\nQuestion: What does parking cost?'
    )
    assert await answer(prompt, "Cite as [1].") == "Parking costs 5 euros. [1]"
