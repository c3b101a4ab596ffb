"""Which numbers vfio-pci's features for dma-bufs have is read from what the kernel answers."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.mappings import Features

UNKNOWN, REVOKES, ATTRIBUTES = ("ENOTTY", "ENOTTY"), ("EBADF", "EBADF"), ("EINVAL", "EBADF")
OTHER = ("EINVAL", "EINVAL")
"""A feature that can be read and not set, or whose data are longer."""


def test_a_released_kernel_has_neither_feature() -> None:
    assert Features.told_by({13: OTHER, 14: UNKNOWN, 15: UNKNOWN}) == Features(None, None)


def test_features_are_found_at_whatever_number_they_have() -> None:
    assert Features.told_by({13: REVOKES, 14: ATTRIBUTES, 15: UNKNOWN}) == Features(13, 14)
    assert Features.told_by({13: OTHER, 14: REVOKES, 15: ATTRIBUTES}) == Features(14, 15)


def test_a_kernel_may_have_one_of_them() -> None:
    assert Features.told_by({13: UNKNOWN, 14: REVOKES}) == Features(14, None)
    assert Features.told_by({13: ATTRIBUTES, 14: UNKNOWN}) == Features(None, 13)


def test_of_two_numbers_that_answer_alike_the_first_is_taken() -> None:
    assert Features.told_by({13: OTHER, 14: REVOKES, 15: REVOKES}) == Features(14, None)
