"""A follow-up is searched for as it stands and behind the question before it, a first question only as it stands."""

import pytest

from loam_retrieval.question import Question
from loam_shared.contracts.retrieval import Message
from loam_shared.errors import InvalidRequestError


def _messages(*turns: tuple[str, str]) -> list[Message]:
    return [Message(role=role, content=content) for role, content in turns]


def test_a_follow_up_is_also_searched_for_behind_the_question_before_it():
    asked = _messages(("user", "How many days of leave?"), ("assistant", "25 [1]."), ("user", "When do they expire?"))
    question = Question.of(asked)
    assert question.text == "When do they expire?"
    assert question.in_context == question.standalone == "How many days of leave? When do they expire?"
    assert list(question.earlier) == asked[:2]


def test_a_question_that_is_long_enough_stands_for_itself():
    asked = _messages(("user", "How many days of leave?"), ("user", "Who reports a badge that was lost in the garage?"))
    assert Question.of(asked).standalone == "Who reports a badge that was lost in the garage?"


def test_a_first_question_has_nothing_to_lean_on():
    assert Question.of(_messages(("system", "Be brief."), ("user", "Why?"))).in_context is None


def test_no_search_is_longer_than_what_a_query_may_be():
    question = Question.of(_messages(("user", "a" * 15_000), ("user", "b" * 30_000)))
    assert (len(question.text), question.in_context) == (20_000, None)


@pytest.mark.parametrize("last", [("assistant", "Hello"), ("user", "  "), ("system", "Be brief.")])
def test_the_last_word_must_be_the_users(last):
    with pytest.raises(InvalidRequestError):
        Question.of(_messages(("user", "Hi"), last))
