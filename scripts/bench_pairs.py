"""Times two builds of optp, or two degrees of one, on the workloads of `optp bench`, one after the other, in rounds.

Machines drift by more than the differences that matter, so only the ratio within a round counts. A workload became
slower by more than the noise if it did so in every round (of 6: a chance of 1 in 64 where nothing changed) and by more
than --least in the middle one. Exit status: 0 nothing became slower, 1 something did, 2 bad usage or a failed run.
"""

import argparse
import json
import statistics
import subprocess
import sys


def run(program, arguments):
    """The lines of one `optp bench`, by workload and batch: median milliseconds."""
    done = subprocess.run([program, "bench", "--quiet", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{program} bench {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {f"{line['workload']} x{line['batch_size']}": line["milliseconds"] for line in lines}


def parse(arguments):
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", help=argparse.SUPPRESS, required=True)
    parser.add_argument("--against", metavar="PATH", required=True, help="the other optp: the one to compare with")
    parser.add_argument("--workload", choices=["forward", "train", "decode"], help="one of them (default: all)")
    parser.add_argument("--model", default="opt-125m", help="preset or folder (default: %(default)s)")
    parser.add_argument("--tp", type=int, default=1, help="ranks (default: %(default)s)")
    parser.add_argument("--against-tp", type=int, help="ranks of the other one (default: as --tp)")
    parser.add_argument("--threads", type=int, help="threads of a rank (default: cores / ranks)")
    parser.add_argument("--weights", default="float32", choices=["float32", "bfloat16", "int8"])
    parser.add_argument("--rounds", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=3, help="of a workload in a round (default: %(default)s)")
    parser.add_argument("--least", type=float, default=0.01, help="difference that matters (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments):
    options = parse(arguments)
    threads = [] if options.threads is None else ["--threads", str(options.threads)]
    sides = [(options.program, options.tp), (options.against, options.against_tp or options.tp)]
    workloads = [options.workload] if options.workload else ["forward", "train", "decode"]
    ratios, times = {}, {}
    for number in range(options.rounds):
        for workload in workloads:
            weights = [] if workload == "train" else ["--weights", options.weights]
            found = {}
            for side in (0, 1) if number % 2 == 0 else (1, 0):  # neither side always runs first
                program, tp = sides[side]
                found[side] = run(program, ["--model", options.model, "--tp", str(tp), "--workload", workload,
                                            "--iterations", str(options.iterations), *threads, *weights])
            for name, here in found[0].items():
                there = found[1][name]
                ratios.setdefault(name, []).append(here / there)
                times.setdefault(name, []).append((here, there))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)

    print(f"{'workload':<12}{'here ms':>10}{'there ms':>10}{'ratio':>8}{'least':>8}{'most':>8}  verdict")
    slower = []
    for name, all_ratios in ratios.items():
        middle = statistics.median(all_ratios)
        here, there = (statistics.median(side) for side in zip(*times[name]))
        verdict = "no difference beyond the noise"
        if min(all_ratios) > 1 and middle > 1 + options.least:
            verdict = "slower"
            slower.append(name)
        elif max(all_ratios) < 1 and middle < 1 - options.least:
            verdict = "faster"
        print(f"{name:<12}{here:>10.1f}{there:>10.1f}{middle:>8.3f}{min(all_ratios):>8.3f}{max(all_ratios):>8.3f}  {verdict}")
    return 1 if slower else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"bench.sh: {error}", file=sys.stderr)
        sys.exit(2)
