"""``python -m benchmarks.operations``: where a training step's time goes, as published and ours, on one thread."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench import ALPHA, training_pair

STEPS, SHOWN = 5, 7


def main() -> None:
    torch.set_num_threads(1)
    for alpha in (0.0, ALPHA):
        for form, step in zip(("as published", "ours"), training_pair(alpha), strict=True):
            step()
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                for _ in range(STEPS):
                    step()
            operations = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
            total = sum(event.self_cpu_time_total for event in operations)
            print(f"alpha = {alpha}, {form}: {total / STEPS / 1000:.0f} ms a step")
            for event in operations[:SHOWN]:
                print(f"  {100 * event.self_cpu_time_total / total:4.0f} %  {event.key.removeprefix('aten::')}")


if __name__ == "__main__":
    main()
