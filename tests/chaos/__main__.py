"""`python -m tests.chaos --runs N --seed S`: N jobs broken at random, from seed S on, and what came of them."""

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.plan import ChaosPlan, draw_plan
from tests.chaos.run import Result, run_chaos
from tests.s3_server import make_bucket, s3_server


def describe(plan: ChaosPlan) -> str:
    steps = [
        ", ".join([f"{strike.fault} at {strike.after_fragments}" for strike in step.strikes] + list(step.between))
        for step in plan.steps
    ]
    return (
        f"seed {plan.seed}: {plan.num_images} images in {len(plan.shards)} shards, {len(plan.slots)} slots, "
        f"{plan.place}"
        f"{f' failing in {plan.storage_share:.0%} of calls' if plan.storage_share else ''}; {' | '.join(steps)}"
    )


def outcome(result: Result) -> str:
    again = "-" if result.images_asked_again is None else f"{result.images_asked_again:.0f}"
    return (
        f"  {'BROKEN' if result.violations else 'ok'}: {result.num_rows} rows, lost {result.num_lost}, "
        f"twice {result.num_double}, {result.num_drivers} drivers, {sum(result.struck.values())} faults, "
        f"{sum(result.missed.values())} missed, {result.num_survivors} staged rows survived, "
        f"{again} images asked again, {result.seconds:.0f} s"
    )


def summary(results: Sequence[Result]) -> str:
    struck = sum((result.struck for result in results), Counter())
    survived = sum((result.struck for result in results if not result.violations), Counter())
    storage = sum((result.storage_faults for result in results), Counter())
    lines = [f"{fault:24} {num:5} injected {survived[fault]:5} survived" for fault, num in sorted(struck.items())]
    lines += [f"  storage: {kind:22} {num:5}" for kind, num in sorted(storage.items())]
    measured = [result for result in results if result.images_asked_again is not None and result.num_kills]
    kills = sum(result.num_kills for result in measured)
    again = sum(result.images_asked_again or 0 for result in measured)
    lines += [
        f"runs {len(results)}, drivers {sum(result.num_drivers for result in results)}, "
        f"broken {sum(bool(result.violations) for result in results)}",
        f"rows {sum(result.num_rows for result in results):,}, lost {sum(result.num_lost for result in results)}, "
        f"twice {sum(result.num_double for result in results)}, rows of earlier attempts that survived "
        f"{sum(result.num_survivors for result in results):,}",
        f"lost work: {again:.0f} images over {kills} kills" + (f", {again / kills:.1f} a kill" if kills else ""),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plan", action="store_true", help="only print what would happen")
    asked = parser.parse_args()
    plans = [draw_plan(asked.seed + number) for number in range(asked.runs)]
    if asked.plan:
        print("\n".join(map(describe, plans)))
        return
    results: list[Result] = []
    with s3_server() as environment:
        os.environ.update(environment)
        make_bucket(environment["AWS_ENDPOINT_URL"], "out")
        for plan in plans:
            print(describe(plan), flush=True)
            with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
                results.append(run_chaos(plan, Path(folder)))
            print(outcome(results[-1]), flush=True)
            for violation in results[-1].violations:
                print(f"  violation: {violation}", flush=True)
    print(summary(results))
    sys.exit(1 if any(result.violations for result in results) else 0)


if __name__ == "__main__":
    main()
