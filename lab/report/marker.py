"""The markers of lines as SVG, by matplotlib's letters, so that both drawings agree."""

from __future__ import annotations

#: Corners around the middle, of markers of size 1.
_SHAPES: dict[str, list[tuple[float, float]]] = {
    "s": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "D": [(0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)],
    "^": [(0, -1.25), (1.2, 0.95), (-1.2, 0.95)],
    "v": [(0, 1.25), (1.2, -0.95), (-1.2, -0.95)],
    "<": [(-1.25, 0), (0.95, 1.2), (0.95, -1.2)],
    "*": [
        (0, -1.7), (0.4, -0.5), (1.6, -0.5), (0.65, 0.25), (1, 1.4),
        (0, 0.7), (-1, 1.4), (-0.65, 0.25), (-1.6, -0.5), (-0.4, -0.5),
    ],
    "P": [
        (-0.45, -1.3), (0.45, -1.3), (0.45, -0.45), (1.3, -0.45), (1.3, 0.45), (0.45, 0.45),
        (0.45, 1.3), (-0.45, 1.3), (-0.45, 0.45), (-1.3, 0.45), (-1.3, -0.45), (-0.45, -0.45),
    ],
}  # fmt: skip


def marker(kind: str, x: float, y: float, size: float = 4.6) -> str:
    """An SVG element around (x, y), in pixels; its colour is its parent's."""
    if kind in ("x", "X"):
        d = size * 0.9
        corners = (x - d, y - d, x + d, y + d), (x - d, y + d, x + d, y - d)
        path = "".join(f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" for x1, y1, x2, y2 in corners)
        return f'<path d="{path}" stroke-width="2" fill="none"/>'
    if kind not in _SHAPES:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" stroke="none"/>'
    points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in _SHAPES[kind])
    return f'<polygon points="{points}" stroke="none"/>'
