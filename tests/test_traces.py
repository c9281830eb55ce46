"""Whole traces: an exporter waits for them, keeps those that matter, and loses none over a kill; late spans follow, also then."""

import signal

import pytest

from conftest import component, free_port, until
from receivers import GrpcReceiver
from senders import chat, export, span

KEPT, DROPPED, COSTLY, LATE = 1, 2, 3, 4


@pytest.fixture
def receiver():
    with GrpcReceiver() as receiver:
        yield receiver


@pytest.fixture
def start(start_gateway, receiver, tmp_path):
    def start(rules, **options):
        port = free_port()
        config = tmp_path / "tollgate.toml"
        config.write_text(
            f"""
            [[exporter]]
            name = "whole"
            kind = "otlp"
            endpoint = "{receiver.endpoint}"
            protocol = "grpc"
            {rules}

            [[exporter]]
            kind = "ndjson"
            """
        )
        arguments = ["--config", config, "--otlp-listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{free_port()}"]
        gateway = start_gateway(arguments=arguments, **options)
        gateway.otlp = f"http://127.0.0.1:{port}"
        gateway.admin = f"http://{arguments[-1]}"
        return gateway

    return start


def failed(number, **more):
    made = span(number, name="tool", **more)
    made.status.code = 2
    return made


def traces(receiver):
    """The span ids that have arrived, by trace."""
    found = {}
    for one in list(receiver.spans):
        found.setdefault(int(one.trace_id, 16), []).append(int(one.span_id, 16))
    return {trace: sorted(spans) for trace, spans in found.items()}


def metric(gateway, name):
    text = gateway.http.get(f"{gateway.admin}/metrics").text
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)}


def test_traces_that_matter_leave_whole_and_late_spans_follow(start, receiver):
    gateway = start('trace-wait-seconds = 3\nkeep-cost = "0.0002 USD"\nsample = 0')
    # One trace in three requests, by two processes, the error last.
    export(gateway, span(11, trace=KEPT, name="handle"), service__name="shop")
    export(gateway, span(21, trace=DROPPED, name="handle"), span(31, trace=COSTLY, name="handle"))
    export(gateway, span(12, trace=KEPT, parent=11, name="call"), service__name="till")
    export(gateway, failed(13, trace=KEPT, parent=12), chat(32, trace=COSTLY))
    # A request of our own is part of its client's trace.
    dropped = gateway.complete(headers={"traceparent": f"00-{DROPPED:032x}-{21:016x}-01"})
    alone = gateway.complete()
    assert traces(receiver) == {}, "nobody leaves before the wait is over"
    until(lambda: traces(receiver).keys() == {KEPT, COSTLY}, 30, what="the traces that matter")
    assert traces(receiver) == {KEPT: [11, 12, 13], COSTLY: [31, 32]}
    export(gateway, span(14, trace=KEPT, name="late"), failed(24, trace=DROPPED))
    until(lambda: traces(receiver)[KEPT] == [11, 12, 13, 14], what="the late span of a trace that left")
    # The other exporter does not wait, and gets everything.
    until(lambda: len(gateway.spans(f"{DROPPED:032x}")) > 6, what="all spans in the file")
    until(lambda: gateway.spans(alone["trace_id"]) and gateway.spans(dropped["trace_id"]), what="ours")
    def decided():
        return metric(gateway, "tollgate_exporter_traces_total")

    until(lambda: sum(decided().values()) == 4, 30, what="a decision on each trace")
    assert {name.split('decision="')[1].split('"')[0]: count for name, count in decided().items()} == {
        "error": 1, "cost": 1, "dropped": 2,
    }
    assert sum(metric(gateway, "tollgate_exporter_late_spans_total").values()) == 2
    assert traces(receiver).keys() == {KEPT, COSTLY}


def test_a_share_of_the_rest_leaves_by_its_traces_ids(start, receiver):
    gateway = start("trace-wait-seconds = 1\nsample = 0.5")
    # The upper half of what is random in an id.
    low, high = [n << 48 for n in range(1, 9)], [(n << 48) | 1 << 55 for n in range(1, 9)]
    for number, trace in enumerate(low + high):
        export(gateway, span(number + 1, trace=trace, name="x"), span(number + 101, trace=trace, name="y"))
    until(lambda: set(traces(receiver)) == set(high), 30, what="half of the traces")
    assert all(len(spans) == 2 for spans in traces(receiver).values())


def test_a_kill_loses_no_trace_and_takes_none_apart(start, receiver):
    rules = "trace-wait-seconds = 20\nsample = 0"
    gateway = start(rules)
    for trace in range(1, 21):
        export(gateway, span(trace, trace=trace, name="begun"), span(trace + 100, trace=trace, name="more"))
    # Others have passed it on.
    until(lambda: len(gateway.spans()) == 40, what="all spans in the file")
    gateway.process.send_signal(signal.SIGKILL)
    gateway.process.wait()
    assert traces(receiver) == {}
    again = start(rules, data=gateway.data)
    # What came before the kill is decided with what comes after it.
    wanted = {trace: [trace, trace + 100, trace + 200] for trace in range(1, 21, 2)}
    for trace in wanted:
        export(again, failed(trace + 200, trace=trace))
    until(lambda: traces(receiver) == wanted, 60, what="the traces with an error, whole")

    def pending():
        return sum(metric(again, 'tollgate_exporter_pending{exporter="whole"').values())

    until(lambda: pending() == 0, 60, what="a decision on each, and the cursor after all of them")
    assert traces(receiver) == wanted


def test_late_spans_follow_a_decision_of_before_a_kill(start, receiver):
    rules = "trace-wait-seconds = 1\nsample = 0"
    gateway = start(rules)
    export(gateway, failed(11, trace=KEPT), span(21, trace=DROPPED, name="handle"))
    until(lambda: sum(metric(gateway, "tollgate_exporter_traces_total").values()) == 2, 30, what="both decisions")
    until(lambda: traces(receiver) == {KEPT: [11]}, what="the trace with an error")
    # What it has sent and not yet marked as sent would come once more.
    pending = 'tollgate_exporter_pending{exporter="whole"'
    until(lambda: sum(metric(gateway, pending).values()) == 0, 30, what="the cursor after both")
    gateway.process.send_signal(signal.SIGKILL)
    gateway.process.wait()
    again = start(rules, data=gateway.data)
    # By themselves they would be decided the other way round.
    export(again, span(12, trace=KEPT, name="late"), failed(22, trace=DROPPED))
    export(again, failed(31, trace=LATE))
    until(lambda: LATE in traces(receiver), 30, what="a trace that is new")
    until(lambda: traces(receiver)[KEPT] == [11, 12], what="the late span of a trace that left")
    assert traces(receiver) == {KEPT: [11, 12], LATE: [31]}
    assert sum(metric(again, "tollgate_exporter_late_spans_total").values()) == 2


def test_kills_in_the_middle_of_decisions_take_no_trace_apart(start, receiver):
    rules = "trace-wait-seconds = 1\nsample = 0"
    data, sent = None, []
    for run in range(3):
        gateway = start(rules, **{"data": data} if data else {})
        data = gateway.data
        for number in range(40):
            trace = 1000 * (run + 1) + number
            export(gateway, failed(trace, trace=trace) if number % 4 == 0 else span(trace, trace=trace, name="x"))
            sent.append(trace)
        # Some are decided by now, some are not.
        until(lambda: sum(metric(gateway, "tollgate_exporter_traces_total").values()) >= 5, 30, what="some decisions")
        gateway.process.send_signal(signal.SIGKILL)
        gateway.process.wait()
    again = start(rules, data=data)
    export(again, *(failed(trace + 500, trace=trace) for trace in sent))

    def pending():
        return sum(metric(again, 'tollgate_exporter_pending{exporter="whole"').values())

    until(lambda: pending() == 0, 60, what="all of them decided and sent")
    # What was sent shortly before a kill may arrive twice.
    left = {trace: set(spans) for trace, spans in traces(receiver).items()}
    apart = {trace: spans for trace, spans in left.items() if spans != {trace, trace + 500}}
    assert not apart, "a late span has left without the rest of its trace"
    assert left.keys() >= {trace for trace in sent if trace % 4 == 0}, "those with an error leave in any case"


def test_want_of_room_decides_early_and_loses_nothing(start, receiver):
    gateway = start("trace-wait-seconds = 600\nsample = 1\ntrace-memory-mib = 1")
    for number in range(1, 9):
        export(gateway, span(number, trace=number, name="large", text="x" * 300_000))
    until(lambda: len(traces(receiver)) >= 5, 30, what="the oldest, for want of room")
    assert sorted(traces(receiver)) == list(range(1, len(traces(receiver)) + 1)), "the oldest first"
    assert sum(metric(gateway, "tollgate_exporter_traces_early_total").values()) == len(traces(receiver))
    gateway.stop()
    # The rest waits in the ledger; a start with another setting delivers it.
    start("", data=gateway.data)
    until(lambda: sorted(traces(receiver)) == list(range(1, 9)), 30, what="all of them")


def test_a_plugin_judges_whole_traces(start, receiver):
    component("rust-trace-filter")
    toml = '[[plugin]]\nfile = "rust-trace-filter.wasm"\nwhole-traces = true\nmatch = { exporters = ["whole"] }\n'
    toml += 'config = { feedback = ["bad"] }\n'
    gateway = start("trace-wait-seconds = 2", plugins=("cost-per-token", "rust-trace-filter"), plugins_toml=toml)
    export(gateway, span(11, trace=KEPT, name="handle"), span(21, trace=DROPPED, name="handle"), service__name="shop")
    export(gateway, span(12, trace=KEPT, parent=11, name="rating", app__feedback="bad"), service__name="till")
    export(gateway, span(22, trace=DROPPED, parent=21, name="rating", app__feedback="good"), service__name="till")
    until(lambda: KEPT in traces(receiver), 30, what="the trace with a complaint")
    assert traces(receiver) == {KEPT: [11, 12]}
    export(gateway, span(13, trace=KEPT, name="late"), span(23, trace=DROPPED, name="late", app__feedback="bad"))
    until(lambda: traces(receiver)[KEPT] == [11, 12, 13], what="the late span")
    assert DROPPED not in traces(receiver)
    assert sum(metric(gateway, "tollgate_exporter_traces_overruled_total").values()) == 1
