"""A server asked what its own OpenAPI description allows and what it does not, by schemathesis."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


@dataclass
class Fuzzed:
    """What came of it: answers by status, and what was wrong."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def fuzz(url: str, examples: int, number: int) -> Fuzzed:
    """Asks a server at `url` so many times for each of its operations, in each mode.

    Every answer is held against the description: its status must be one that is described and below 500 (a full house
    apart), its type and content as described, and what the description forbids must be refused.

    Args:
        number: seeds the draws.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        fuzzed = Fuzzed()
        for result in schema.get_all_operations():
            operation = result.ok()
            for mode in MODES:
                try:
                    strategy = operation.as_strategy(generation_mode=mode)
                    _ask(strategy, fuzzed, examples, number)
                except Unsatisfiable:  # there is nothing that the description forbids
                    continue
                except (Exception, BaseExceptionGroup) as error:
                    fuzzed.faults.append(f"{operation.label}, {mode.value}: {_first(error)}")
        return fuzzed


def _ask(strategy: object, fuzzed: Fuzzed, examples: int, number: int) -> None:
    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)  # pyright: ignore
    def asked(case: schemathesis.Case) -> None:
        response = case.call(timeout=60)
        fuzzed.statuses[response.status_code] += 1
        assert b"Traceback" not in response.content, "a traceback in the answer"
        if response.status_code != 503:  # is described, but schemathesis takes any 5.. for a fault
            case.validate_response(response, excluded_checks=[positive_data_acceptance])

    asked()


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split())[:400] or type(error).__name__
