#!/usr/bin/env python3
"""How the time of a training step grows with tokens and with layers, as a table.

    python3 scripts/bench_growth.py build/release/optp [--rounds 3]

For each size, steps at three numbers of tokens and three of layers, in rounds, so that a change of the machine's speed
meets all. `off a line`: how far the middle one lies from the straight line through the others, as a share of its time.
"""

import argparse
import json
import statistics
import subprocess

# preset, tokens (batches of 256), layers
SIZES = [("opt-tiny", (8, 16, 32), (8, 16, 24)), ("opt-125m", (2, 4, 8), (4, 8, 12)), ("opt-350m", (1, 2, 4), (8, 16, 24))]


def milliseconds(program, model, batch, layers, iterations):
    done = subprocess.run([program, "bench", "--quiet", "--model", model, "--num-layers", str(layers), "--workload", "train",
                           "--batch-size", str(batch), "--iterations", str(iterations)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)["milliseconds"]


def off_a_line(times, counts):
    line = times[0] + (times[2] - times[0]) * (counts[1] - counts[0]) / (counts[2] - counts[0])
    return abs(times[1] / line - 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optp")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3)
    options = parser.parse_args()
    print("| model | step, ms, at 1x, 2x, 4x the tokens | off a line | step, ms, by number of layers | off a line |")
    print("| --- | --- | --- | --- | --- |")
    for model, batches, layers in SIZES:
        points = [(batch, layers[-1]) for batch in batches] + [(batches[1], count) for count in layers[:-1]]
        times = {point: [] for point in points}
        for _ in range(options.rounds):
            for point in points:
                times[point].append(milliseconds(options.optp, model, *point, options.iterations))
        middle = {point: statistics.median(all_times) for point, all_times in times.items()}
        by_tokens = [middle[batch, layers[-1]] for batch in batches]
        by_layers = [middle[batches[1], count] for count in layers]
        tokens = ", ".join(f"{time:.0f}" for time in by_tokens)
        counts = ", ".join(f"{count}: {time:.0f}" for count, time in zip(layers, by_layers))
        print(f"| {model} | {tokens} | {off_a_line(by_tokens, batches):.1%} | {counts} | {off_a_line(by_layers, layers):.1%} |",
              flush=True)


if __name__ == "__main__":
    main()
