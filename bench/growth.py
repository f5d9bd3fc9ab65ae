"""The cost of a message against the number of edges, as a picture. Pure but for the file it writes."""

from __future__ import annotations

import math
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 360, 70, 50
COLOURS = ("#1f6fb2", "#888888")


def picture(path: Path, lines: dict[str, list[tuple[int, float]]]) -> None:
    """``lines``: name -> (edges, microseconds of processor time a message). Edges on a logarithmic axis."""
    xs = [math.log10(x) for points in lines.values() for x, _ in points]
    top = max(y for points in lines.values() for _, y in points) * 1.15
    low, high = min(xs), max(xs)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low) / max(high - low, 1e-9)
        return LEFT + across * (WIDTH - LEFT - 20), HEIGHT - BOTTOM - y / top * (HEIGHT - BOTTOM - 20)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    step = 10 ** math.floor(math.log10(top))
    step = step if top / step >= 3 else step / 5
    for n in range(int(top / step) + 1):
        x, y = at(10**low, n * step)
        parts.append(f'<path d="M{x:.0f} {y:.0f}H{WIDTH - 20}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 8:.0f}" y="{y + 4:.0f}" text-anchor="end">{n * step:g}</text>')
    for edges in sorted({x for points in lines.values() for x, _ in points}):
        x, y = at(edges, 0)
        parts.append(f'<text x="{x:.0f}" y="{y + 18:.0f}" text-anchor="middle">{edges}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">edges</text>')
    parts.append(f'<text x="14" y="{HEIGHT / 2}" transform="rotate(-90 14 {HEIGHT / 2})" ')
    parts.append('text-anchor="middle">µs of processor time a message</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(x, y) for x, y in points]
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="'
            + " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            + '"/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        x, y = places[-1]
        parts.append(f'<text x="{x - 6:.0f}" y="{y - 10:.0f}" text-anchor="end" fill="{colour}">{name}</text>')
    path.write_text("".join([*parts, "</svg>\n"]))
