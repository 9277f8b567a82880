#!/usr/bin/env python3
"""How the time of a training step grows with tokens and with layers, as a table.

    python3 scripts/bench_growth.py build/release/optp [--rounds 3]

For each size, steps at three numbers of tokens and three of layers, in rounds, so that a change of the machine's speed
meets all. `by tokens`: the time a token takes at most over what it takes at least. `by layers`: the same for what each
further layer adds. 1.00 is exactly linear.
"""

import argparse
import json
import statistics
import subprocess

# preset, tokens (batches of 256), layers
SIZES = [("opt-tiny", (8, 16, 32), (8, 16, 24)), ("opt-125m", (2, 4, 8), (4, 8, 12)), ("opt-350m", (2, 4, 8), (8, 16, 24))]


def milliseconds(program, model, batch, layers, iterations):
    done = subprocess.run([program, "bench", "--quiet", "--model", model, "--num-layers", str(layers), "--workload", "train",
                           "--batch-size", str(batch), "--iterations", str(iterations)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)["milliseconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optp")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3)
    options = parser.parse_args()
    print("| model | step, ms, at 1x, 2x, 4x the tokens | by tokens | step, ms, by number of layers | by layers |")
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
        a_token = [time / batch for time, batch in zip(by_tokens, batches)]
        a_layer = [(by_layers[i + 1] - by_layers[i]) / (layers[i + 1] - layers[i]) for i in range(len(layers) - 1)]
        tokens = ", ".join(f"{time:.0f}" for time in by_tokens)
        counts = ", ".join(f"{count}: {time:.0f}" for count, time in zip(layers, by_layers))
        print(f"| {model} | {tokens} | {max(a_token) / min(a_token):.2f} | {counts} | {max(a_layer) / min(a_layer):.2f} |",
              flush=True)


if __name__ == "__main__":
    main()
