"""``python -m tests.fuzz [--messages N] [--seed N]``: the campaign, in pieces; stops at the first broken rule."""

from __future__ import annotations

import argparse
import time

from tests.fuzz.campaign import Campaign, objects

PIECE = 20_000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--messages", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=int(time.time()))
    chosen = options.parse_args()
    done, seed, first = 0, chosen.seed, 0
    while done < chosen.messages:
        began = time.perf_counter()
        count = min(PIECE, chosen.messages - done)
        campaign = Campaign(seed)
        campaign.run(count)
        replies = campaign.replies
        del campaign
        alive = objects()
        first = first or alive
        done += count
        rate = count / (time.perf_counter() - began)
        print(f"seed {seed}: {done} messages, {replies} replies, {alive} objects, {rate:.0f} messages/s", flush=True)
        if alive > first * 1.2 + 10_000:
            raise SystemExit(f"objects grew from {first} to {alive}")
        seed += 2
    print("no rule was broken")


if __name__ == "__main__":
    main()
