"""Print how much of each room the tests ran, from the .coverage file that `make test` leaves."""

import io
from collections import Counter
from pathlib import Path

import coverage


def main() -> None:
    data = coverage.Coverage()
    data.load()
    package = Path(__file__).parents[1] / "src" / "tectum"
    lines: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for file in data.get_data().measured_files():
        path = Path(file)
        if not path.is_relative_to(package):
            continue
        room = path.relative_to(package).parts[0].removesuffix(".py")
        _, statements, _, missing, _ = data.analysis2(file)
        lines[room] += len(statements)
        missed[room] += len(missing)
    output = io.StringIO()
    print(f"{'room':12} {'lines':>6} {'run %':>6}", file=output)
    for room in sorted(lines):
        print(f"{room:12} {lines[room]:6} {100 - 100 * missed[room] / max(1, lines[room]):6.1f}", file=output)
    total = sum(lines.values())
    print(f"{'all':12} {total:6} {100 - 100 * sum(missed.values()) / total:6.1f}", file=output)
    print(output.getvalue(), end="")


if __name__ == "__main__":
    main()
