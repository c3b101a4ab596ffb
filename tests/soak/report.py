"""What a soak has done, as text, and what its servers held at rest, as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from tests.soak.state import Rest, State

_WIDTH, _HEIGHT, _LEFT, _TOP = 720, 110, 70, 30
_PANELS: tuple[tuple[str, Callable[[Rest], float]], ...] = (
    ("descriptors", lambda rest: rest.descriptors),
    ("threads", lambda rest: rest.threads),
    ("own memory, MiB", lambda rest: rest.own),
    ("VRAM, GGTTs in use, MiB", lambda rest: rest.memory),
)
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")


def text(states: Sequence[State]) -> str:
    """A table of all shards together, and their findings."""
    rounds, known, killed = Counter[str](), Counter[str](), Counter[str]()
    for state in states:
        rounds += state.rounds
        known += state.known
        killed += state.killed
    rows = [
        ("hours", f"{sum(state.hours for state in states):.2f}"),
        ("servers", f"{sum(state.servers for state in states)}"),
        ("guests", f"{sum(state.guests for state in states)}"),
        ("rounds that came to their end", f"{rounds.total()}, of {len(rounds)} scenarios"),
        ("known defects of the kernel", ", ".join(f"{name} {count}" for name, count in known.items()) or "none"),
        ("killed", ", ".join(f"{name} {count}" for name, count in sorted(killed.items())) or "nobody"),
    ]
    rests = [rest for state in states for rest in state.rests]
    for name, value in _PANELS if rests else ():
        values = [value(rest) for rest in rests]
        rows.append((f"{name} at rest", f"{min(values):.0f} to {max(values):.0f}, {len(values)} times"))
    findings = [finding for state in states for finding in state.findings]
    rows.append(("findings", str(len(findings))))
    lines = [f"{name:32} {value}" for name, value in rows]
    lines += [f"  round {finding['round']}: {finding['what']}: {finding['why']}" for finding in findings]
    return "\n".join(lines)


def plot(states: Sequence[State]) -> str:
    """An SVG: what servers held between guests, over the hours; a line for each server."""
    panels = [
        _panel(title, [[(rest.hours, value(rest), rest.server) for rest in state.rests] for state in states], at)
        for at, (title, value) in enumerate(_PANELS)
    ]
    height = len(_PANELS) * (_HEIGHT + _TOP + 20) + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH + _LEFT + 20} {height}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>\n'
    )


def _panel(title: str, shards: Sequence[Sequence[tuple[float, float, int]]], at: int) -> str:
    points = [point for shard in shards for point in shard]
    longest = max((hours for hours, _, _ in points), default=1.0) or 1.0
    most = max((value for _, value, _ in points), default=1.0) or 1.0
    top = _TOP + at * (_HEIGHT + _TOP + 20)

    def place(hours: float, value: float) -> str:
        return f"{_LEFT + hours / longest * _WIDTH:.1f},{top + _HEIGHT - value / most * _HEIGHT:.1f}"

    made = [
        f'<text x="{_LEFT}" y="{top - 8}">{escape(title)}</text>',
        f'<path d="M{_LEFT},{top}V{top + _HEIGHT}H{_LEFT + _WIDTH}" fill="none" stroke="black"/>',
        f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end">{most:.0f}</text>',
        f'<text x="{_LEFT - 6}" y="{top + _HEIGHT}" text-anchor="end">0</text>',
        f'<text x="{_LEFT + _WIDTH}" y="{top + _HEIGHT + 15}" text-anchor="end">{longest:.1f} h</text>',
    ]
    for number, shard in enumerate(shards):
        colour = _COLOURS[number % len(_COLOURS)]
        for server in sorted({server for _, _, server in shard}):
            places = [place(hours, value) for hours, value, its in shard if its == server]
            made.append(f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            made += [
                f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/>' for x, y in (one.split(",") for one in places)
            ]
    return "".join(made)
