"""What drivers and the GuC have written for each other in memory, for the control socket's `guc_memory`.

The firmware's header, the ADS with the lists of registers to capture, the log's states, and the descriptors of CT buffers.
"""

from __future__ import annotations

from typing import Any

from vfio_user_xe.device_models.xe.guc.boot import ADS, LOG_PARAMS
from vfio_user_xe.device_models.xe.guc.formats import ads, ct, firmware, log
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.emulator.fabric.interconnect import AccessFault
from vfio_user_xe.emulator.model.layout import plain

_CLASSES = ("render", "video", "video_enhance", "blitter", "compute")
"""By GUC_*_CLASS (`xe_guc_fwif.h`)."""
_OWNERS = ("pf", "vf")


def dump(guc: Guc) -> dict[str, Any]:
    """Everything of one GT. What is not there is None, what does not translate has a "fault". On the executor."""
    return {
        "gt": guc.gt.index,
        "firmware": plain(firmware.CSS_HEADER.parse(guc.boot.header)) if guc.boot.header else None,
        "ads": _ads(guc),
        "log": _log(guc),
        "ct": {host.name: _ct(host) for host in guc.hosts if host.present},
    }


def _read(host: Host, address: int, layout: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = plain(layout.parse(host.space.read(address, layout.sizeof())))
    except (TranslationFault, AccessFault) as fault:
        return {"address": address, "fault": str(fault)}
    return {"address": address, **found}


def _ads(guc: Guc) -> dict[str, Any] | None:
    address = ads.address(guc.boot.parameter(ADS))
    if not address:
        return None
    found = _read(guc.pf, address, ads.ADS)
    if "fault" in found:
        return found
    # Of 512 engine instances few are there; of 16 classes five.
    found["reg_state_list"] = {
        f"{_class_name(number)}.{instance}": registers
        for number, instances in enumerate(found["reg_state_list"])
        for instance, registers in enumerate(instances)
        if registers["count"]
    }
    for field in ("golden_context_lrca", "eng_state_size"):
        found[field] = {_class_name(number): value for number, value in enumerate(found[field]) if value}
    for field in ("capture_instance", "capture_class"):
        found[field] = {
            owner: {number: value for number, value in enumerate(values) if value}
            for owner, values in zip(_OWNERS, found[field], strict=True)
        }
    found["capture_global"] = dict(zip(_OWNERS, found["capture_global"], strict=True))
    return found


def _class_name(number: int) -> str:
    return _CLASSES[number] if number < len(_CLASSES) else str(number)


def _log(guc: Guc) -> dict[str, Any] | None:
    place = log.place(guc.boot.parameter(LOG_PARAMS))
    if place is None:
        return None
    found = _read(guc.pf, place.header, log.HEADER)
    if "fault" in found:
        return found
    states = dict(zip(log.PARTS, found.pop("states"), strict=True))
    return {**found, "capture_address": place.capture, "capture_bytes": place.capture_size, **states}


def _ct(host: Host) -> dict[str, Any] | None:
    rings = {"h2g": host.ctb.h2g, "g2h": host.ctb.g2h}
    known = {name: ring for name, ring in rings.items() if ring.complete}
    if not known:
        return None
    return {name: {**_read(host, ring.descriptor, ct.DESCRIPTOR), "dwords": ring.size} for name, ring in known.items()}
