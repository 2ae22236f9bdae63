"""The metrics' names and labels, which dashboards and alerts rely on."""

from __future__ import annotations

import re

from prometheus_client import REGISTRY

from ops.runtime import metrics

PER_REQUEST = {"request_id", "turn_id", "session_id", "user_id", "model", "path", "key"}
OURS = {name: each for name, each in vars(metrics).items() if hasattr(each, "_labelnames")}


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_every_metric_bears_our_name() -> None:
    assert OURS
    assert [each._name for each in OURS.values() if not re.fullmatch(r"cozy_[a-z_]+", each._name)] == []


def test_no_label_has_a_value_per_request() -> None:
    assert [name for name, each in OURS.items() if PER_REQUEST & set(each._labelnames)] == []


def test_a_turn_is_counted_when_it_is_accepted_and_when_it_ends() -> None:
    accepted, failed = value("cozy_turns_total", state="accepted"), value("cozy_turns_total", state="failed")
    metrics.turn_accepted()
    metrics.turn_ended("failed")
    assert value("cozy_turns_total", state="accepted") == accepted + 1
    assert value("cozy_turns_total", state="failed") == failed + 1


def test_tokens_are_counted_by_kind() -> None:
    before = value("cozy_tokens_total", kind="completion")
    metrics.tokens(10, 7)
    assert value("cozy_tokens_total", kind="completion") == before + 7


def test_a_stage_s_work_is_counted_and_timed() -> None:
    labels = {"stage": "metrics_test"}
    metrics.worked("metrics_test", "done", 0.2)
    metrics.worked("metrics_test", "failed")
    assert value("cozy_stage_work_total", **labels, outcome="done") == 1
    assert value("cozy_stage_seconds_count", **labels) == 1


def test_an_answer_of_the_records_worker_is_counted_and_timed() -> None:
    metrics.record_answered("MetricsTest", "answered", 0.01)
    assert value("cozy_record_answers_total", question="MetricsTest", outcome="answered") == 1
    assert value("cozy_record_seconds_sum", question="MetricsTest") == 0.01
