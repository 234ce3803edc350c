"""Prometheus' text, as Triton writes it."""

from __future__ import annotations

from clara_wf.trtis.metrics import parse

TEXT = """
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="liver",version="1"} 5
nv_inference_request_failure{model="liver",reason="BACKEND",version="1"} 2
nv_inference_request_failure{model="liver",reason="OTHER",version="1"} 1
nv_inference_request_success{model="a \\"b\\"",version="2"} 0
nv_inference_count{model="liver",version="1"} 9
nv_inference_exec_count{model="liver",version="1"} 4
nv_inference_request_duration_us{model="liver",version="1"} 1e+07
nv_inference_queue_duration_us{model="liver",version="1"} 2000000
nv_inference_compute_input_duration_us{model="liver",version="1"} 500000
nv_inference_compute_infer_duration_us{model="liver",version="1"} 7000000
nv_inference_compute_output_duration_us{model="liver",version="1"} 500000
clara_wf_request_failure{model="liver",version="1"} 1
nv_cpu_utilization 0.25
nv_cpu_memory_total_bytes 25769803776
"""


def test_counters_by_model():
    counters = parse(TEXT)
    assert set(counters) == {("liver", "1"), ('a \\"b\\"', "2")}
    liver = counters["liver", "1"]
    assert (liver.requests, liver.failures, liver.inferences) == (4, 4, 9)
    assert (liver.latency_ms, liver.queue_ms, liver.compute_ms) == (2000, 400, 1600)


def test_where_there_was_no_request_there_is_no_mean():
    unasked = parse(TEXT)['a \\"b\\"', "2"]
    assert (unasked.requests, unasked.latency_ms) == (0, None)
    assert parse("") == {}


def test_a_refusal_that_is_counted_before_its_answer_is_no_negative_number():
    of_one = '{model="one",version="1"}'
    one = parse(f"clara_wf_request_failure{of_one} 1\nnv_inference_request_success{of_one} 0\n")["one", "1"]
    assert (one.requests, one.failures) == (0, 1)
