from __future__ import annotations

import numpy as np
import pytest

from tests.unit.xe.eu.kernel import END, Port, lanes, start
from vfio_user_xe.device_models.xe.eu.messages.message import GatewayMessage, GatewayOp, LscMessage
from vfio_user_xe.device_models.xe.eu.port import Outcome, Reply, Request
from vfio_user_xe.device_models.xe.eu.reference.interpreter import RunState
from vfio_user_xe.device_models.xe.eu.reference.threads import Cause, Status, Threads, ThreadStateError

LOAD = "send.ugm (16|M0)  r14  r10  null:0  0x00010000  0x04100580\n"
STORE = "send.ugm (16|M0)  null  r10  r14:1  0x0  0x04000584\n"
ADDRESSES = np.arange(16, dtype=np.uint64) * 4 + 0x1_0000_0000


def loads(request: Request) -> Reply:
    """Each lane receives the low half of its address plus the offset."""
    if not isinstance(request.message, LscMessage):
        return Reply()
    count = request.message.length0 * 64
    addresses = np.ascontiguousarray(request.payload[:, :count]).view(np.uint64)
    data = (addresses + np.uint64(request.message.offset)).astype(np.uint32)
    return Reply(np.ascontiguousarray(data).view(np.uint8))


def test_a_load_brings_data_to_the_lanes_that_take_part() -> None:
    port = Port(loads)
    interpreter = start(
        "(W) mov (1|M0)  f0.0<1>:uw  0x00FF:uw\n(f0.0) " + LOAD + END,
        dispatch=[0xFFFE],
        registers={10: ADDRESSES, 14: np.full(16, 7, np.uint32)},
        port=port,
    )
    assert interpreter.run(100) is RunState.ENDED
    assert lanes(interpreter.threads, 14, np.uint32).tolist() == [7] + [16 + 4 * n for n in range(1, 8)] + [7] * 8
    assert port.requests[0].lanes[0].tolist() == [False] + [True] * 7 + [False] * 8


def test_a_store_carries_both_parts_of_its_payload() -> None:
    port = Port()
    data = np.arange(16, dtype=np.uint32) + 50
    interpreter = start(STORE + END, registers={10: ADDRESSES, 14: data}, port=port)
    assert interpreter.run(100) is RunState.ENDED
    request = port.requests[0]
    assert request.length0 == 2
    assert request.payload[0, 128:].copy().view(np.uint32).tolist() == data.tolist()


def test_threads_at_the_same_send_are_one_request() -> None:
    port = Port()
    interpreter = start(STORE + END, dispatch=[0xFFFF] * 5, registers={10: ADDRESSES}, port=port)
    assert interpreter.run(100) is RunState.ENDED
    assert [request.threads.tolist() for request in port.requests] == [[0, 1, 2, 3, 4]] * 2


def test_a_send_without_lanes_is_not_sent() -> None:
    port = Port()
    interpreter = start("(f0.0) " + STORE + END, port=port)
    assert interpreter.run(100) is RunState.ENDED
    assert [type(request.message) for request in port.requests] == [GatewayMessage]


def test_descriptors_and_surfaces_come_from_a0_where_the_instruction_says_so() -> None:
    port = Port()
    interpreter = start(
        """
        (W) mov (1|M0)  a0.0<1>:ud  0x4200D504:ud
        (W) mov (1|M0)  a0.2<1>:ud  r1.0<0;1,0>:ud
        (W) send.ugm (1|M0)  null  r10  r14:1  a0.2  a0.0
        """
        + END,
        dispatch=[1, 1, 1],
        port=port,
    )
    interpreter.threads.registers[:, 64:68] = np.array([[0x1040], [0x2080], [0x1040]], np.uint32).view(np.uint8)
    assert interpreter.run(1000) is RunState.ENDED
    seen = {request.surface: request.threads.tolist() for request in port.requests[:2]}
    assert seen == {0x1040: [0, 2], 0x2080: [1]}


def test_length_of_the_second_part_is_in_a0_without_exbso() -> None:
    port = Port()
    text = """
        (W) mov (1|M0)  a0.2<1>:ud  0x000010C0:ud
        send.smpl (16|M0)  r20  r10  r14:1  a0.2  0x0223A0FC
    """
    interpreter = start(text + END, port=port)
    assert interpreter.run(1000) is RunState.ENDED
    assert port.requests[0].payload.shape[1] == (1 + 3) * 64
    assert port.requests[0].surface == 0x1000


def test_a_pending_reply_is_brought_later() -> None:
    port = Port(
        lambda request: (
            Reply(outcome=np.full(len(request.threads), Outcome.PENDING))
            if isinstance(request.message, LscMessage)
            else Reply()
        )
    )
    interpreter = start(LOAD + "add (16|M0)  r14.0<1>:ud  r14.0<1;1,0>:ud  1:d\n" + END, port=port)
    assert interpreter.run(100) is RunState.WAITING
    assert interpreter.threads.status[0] == Status.WAITING
    interpreter.complete(0, np.arange(16, dtype=np.uint32).view(np.uint8))
    assert interpreter.run(100) is RunState.ENDED
    assert lanes(interpreter.threads, 14, np.uint32).tolist() == list(range(1, 17))


def test_a_thread_that_waits_for_nothing_cannot_be_completed() -> None:
    interpreter = start(END)
    with pytest.raises(ThreadStateError, match="thread 0 is running; complete needs waiting"):
        interpreter.complete(0)


def test_a_retried_message_is_sent_again_after_resuming_and_others_go_on() -> None:
    faulting = {1}

    def answer(request: Request) -> Reply:
        if not isinstance(request.message, LscMessage):
            return Reply()
        outcome = np.array([Outcome.RETRY if thread in faulting else Outcome.DONE for thread in request.threads])
        return Reply(loads(request).data, outcome)

    port = Port(answer)
    interpreter = start(LOAD + END, dispatch=[0xFFFF] * 3, registers={10: ADDRESSES}, port=port)
    assert interpreter.run(100) is RunState.WAITING
    assert interpreter.threads.status.tolist() == [Status.ENDED, Status.STOPPED, Status.ENDED]
    assert not lanes(interpreter.threads, 14, np.uint32, thread=1).any()
    faulting.clear()
    interpreter.threads.resume([1])
    assert interpreter.run(100) is RunState.ENDED
    assert lanes(interpreter.threads, 14, np.uint32, thread=1).tolist() == [16 + 4 * n for n in range(16)]


def test_what_the_port_raises_leaves_threads_at_their_send() -> None:
    calls = []

    def answer(request: Request) -> Reply:
        calls.append(request)
        if len(calls) == 1:
            raise ConnectionError("the card is gone")
        return loads(request)

    interpreter = start(LOAD + END, registers={10: ADDRESSES}, port=Port(answer))
    with pytest.raises(ConnectionError):
        interpreter.run(100)
    assert interpreter.threads.current().tolist() == [0]
    assert interpreter.run(100) is RunState.ENDED
    assert lanes(interpreter.threads, 14, np.uint32, 1).tolist() == [16]


def test_a_barrier_holds_threads_until_all_have_signalled() -> None:
    signalled: list[int] = []

    def answer(request: Request) -> Reply:
        if isinstance(request.message, GatewayMessage) and request.message.op is GatewayOp.BARRIER:
            signalled.extend(request.threads.tolist())
        return Reply()

    text = "(W) send.gtwy (1|M0)  null  r1  null:0  0x0  0x02000004\nsync.bar null\nmov (16|M0)  r5.0<1>:d  1:d\n" + END
    interpreter = start(text, dispatch=[0xFFFF, 0xFFFF], port=Port(answer))
    assert interpreter.run(100) is RunState.WAITING
    assert interpreter.threads.status.tolist() == [Status.BARRIER] * 2
    assert sorted(signalled) == [0, 1]
    assert not lanes(interpreter.threads, 5, np.int32).any()
    interpreter.threads.notify([0, 1])
    assert interpreter.run(100) is RunState.ENDED
    assert lanes(interpreter.threads, 5, np.int32).all()


def test_a_barrier_that_completes_before_the_wait_does_not_hold() -> None:
    interpreter = start("sync.bar null\n" + END)
    interpreter.threads.notify([0])
    assert interpreter.run(100) is RunState.ENDED


def test_a_payload_beyond_the_register_file_by_a_descriptor_in_a0_raises_an_exception() -> None:
    port = Port()
    text = "(W) mov (1|M0)  a0.0<1>:ud  0x08200580:ud\nsend.ugm (16|M0)  r14  r254  null:0  0x0  a0.0\n" + END
    interpreter = start(text, port=port)
    assert interpreter.run(100) is RunState.WAITING
    assert interpreter.threads.cause[0] == Cause.DESCRIPTOR
    assert port.requests == []


def test_threads_saved_in_the_middle_run_on_elsewhere() -> None:
    text = """
        top: add (16|M0)  r2.0<1>:d  r2.0<1;1,0>:d  1:d
        cmp (16|M0)  (lt)f0.0  null<1>:d  r2.0<1;1,0>:d  r1.0<1;1,0>:d
        (f0.0) while (16|M0)  top
    """
    limits = np.arange(16, dtype=np.int32) * 3
    whole = start(text + END, registers={1: limits})
    assert whole.run(10_000) is RunState.ENDED
    first = start(text + END, registers={1: limits})
    assert first.run(20) is RunState.SLICE_USED
    second = start(text + END)
    second.threads = Threads.restore(first.threads.save())
    assert second.run(10_000) is RunState.ENDED
    for name, array in whole.threads.save().items():
        assert np.array_equal(array, second.threads.save()[name]), name


def test_saved_arrays_must_be_of_as_many_threads() -> None:
    arrays = start(END, dispatch=[1, 1]).threads.save()
    arrays["status"] = arrays["status"][:1]
    with pytest.raises(ValueError, match="saved array status is of 1 threads, registers of 2"):
        Threads.restore(arrays)


def test_timestamps_ip_and_lanes_are_read_as_they_are() -> None:
    interpreter = start(
        """
        (W) mov (2|M0)  r5.0<1>:ud  tm0.0<1;1,0>:ud
        (W) mov (1|M0)  r6.0<1>:ud  ip<0;1,0>:ud
        (W) mov (1|M0)  r7.0<1>:ud  ce0.0<0;1,0>:ud
        (W) mov (1|M0)  r8.0<1>:ud  n0.0<0;1,0>:ud
        """
        + END,
        dispatch=[0x0FFF],
        clock=lambda: 0x1_0000_0002,
    )
    interpreter.threads.notify([0])
    assert interpreter.run(100) is RunState.ENDED
    threads = interpreter.threads
    assert lanes(threads, 5, np.uint32, 2).tolist() == [2, 1]
    assert [int(lanes(threads, n, np.uint32, 1)[0]) for n in (6, 7, 8)] == [16, 0x0FFF, 1]


def test_lanes_that_all_leave_without_an_end_message_end_the_thread() -> None:
    interpreter = start(END, dispatch=[0])
    assert interpreter.run(100) is RunState.ENDED


def test_scratch_is_addressed_by_the_surface_state_of_r0_5() -> None:
    port = Port()
    interpreter = start(
        """
        (W) and (1|M0)  r126.0<1>:ud  r0.5<0;1,0>:ud  0xFFFFFC00:ud
        (W) shr (1|M0)  a0.2<1>:ud    r126.0<0;1,0>:ud  0x4:ud
        (W) send.ugm (1|M0)  null  r10  r14:1  a0.2+0x88000  0x4200D504
        """
        + END,
        port=port,
    )
    interpreter.threads.registers[0, 20:24] = np.frombuffer((0x12345 << 10 | 0x3F).to_bytes(4, "little"), np.uint8)
    assert interpreter.run(100) is RunState.ENDED
    request = port.requests[0]
    assert request.surface == 0x12345 << 6
    assert isinstance(request.message, LscMessage)
    assert request.message.offset == 0x18
