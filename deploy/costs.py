"""Print what a month of deploy/service.yaml costs, for three sizes or your own.

    python deploy/costs.py
    python deploy/costs.py --requests-per-second 50 --batch-gb 200 --json

Prices are in prices.toml beside this file, measured figures in docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

PRICES: dict[str, float] = tomllib.loads(Path(__file__).with_name("prices.toml").read_text())
HOURS, SECONDS = 730, 730 * 3600
REQUESTS_PER_VCPU = 5_000
"""A quarter of what one worker answers on the machine of docs/scaling.md, whose load generator ran beside it."""
PEAK = 3
"""Peak over mean requests."""
BATCH_GB_PER_VCPU_HOUR = 24
"""CSV read, predicted, logged and written."""
LOGGED_BYTES, REQUEST_BYTES, LINE_BYTES = 110, 1_500, 300
"""A row of the prediction log as Parquet, a request with its answer, and a line of the access log."""
SHIP_SECONDS, WRITES_PER_SHIPMENT = 5, 6
ROW_BYTES = 170
"""A row of a CSV file of 25 columns."""


@dataclass(frozen=True)
class Size:
    """A volume: mean requests per second, GB of tables a month, hours of training a month, and days that data are kept."""

    requests_per_second: float
    batch_gb: float
    training_hours: float = 4.3
    days: int = 365


SIZES = {"small": Size(10, 10), "medium": Size(100, 100), "large": Size(1_000, 1_000)}


def replicas(size: Size) -> int:
    """Return the replicas of one vCPU and 2 GB that answer the peak at half their capacity; two at least, one in each zone."""
    return max(2, math.ceil(size.requests_per_second * PEAK / (REQUESTS_PER_VCPU / 2)))


def costs(size: Size, *, waf: bool, access_log: bool) -> dict[str, float]:
    """Return the dollars of a month by item, when data have been collected for `size.days`."""
    price, requests = PRICES, size.requests_per_second * SECONDS
    count = replicas(size)
    vcpu, gb = price["fargate_vcpu_hour"], price["fargate_gb_hour"]
    batch_hours = size.batch_gb / BATCH_GB_PER_VCPU_HOUR
    logged_gb = (requests + size.batch_gb * 1e9 / ROW_BYTES) * LOGGED_BYTES / 1e9
    months = size.days / 30.4
    recent = (size.batch_gb + logged_gb) * min(1, months)
    older = (size.batch_gb + logged_gb) * max(0, months - 1)
    balanced_gb_hour = size.requests_per_second * REQUEST_BYTES * 3600 / 1e9
    writes = min(requests, count * SECONDS / SHIP_SECONDS) * WRITES_PER_SHIPMENT
    return {
        f"{count} replicas of 1 vCPU, 2 GB": count * HOURS * (vcpu + 2 * gb),
        "training, 4 vCPU, 16 GB": size.training_hours * (4 * vcpu + 16 * gb),
        "batch predictions, Spot": batch_hours * (vcpu + 4 * gb) * price["fargate_spot_share"],
        "load balancer": HOURS * (price["load_balancer_hour"] + price["load_balancer_unit_hour"] * max(1, balanced_gb_hour)),
        "WAF": price["waf_month"] + requests * price["waf_request"] if waf else 0,
        "S3, tables and log of the last 30 days": recent * price["s3_gb_month"],
        "S3, older, infrequent access": older * price["s3_infrequent_gb_month"],
        "S3, writes of the prediction log": writes * price["s3_write"],
        "S3, polls": count * SECONDS / 5 * price["s3_read"],
        "access log in CloudWatch": requests * LINE_BYTES / 1e9 * price["logs_gb"] if access_log else 0,
        "endpoints of ECR, logs and secrets in two zones": 4 * 2 * HOURS * price["endpoint_hour"],
        "Lambda, secrets and keys": 10_000 * price["lambda_request"] + price["secrets_and_keys_month"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests-per-second", type=float, help="mean; with it, only this size is printed")
    parser.add_argument("--batch-gb", type=float, default=0, help="GB of tables a month")
    parser.add_argument("--no-waf", action="store_true", help="without a limit of requests by address")
    parser.add_argument("--no-access-log", action="store_true", help="with PODIUM_ACCESS_LOG=false; the prediction log stays")
    parser.add_argument("--json", action="store_true", help="JSON output")
    options = parser.parse_args()
    given = options.requests_per_second
    sizes = SIZES if given is None else {"yours": Size(given, options.batch_gb)}
    found = {name: costs(size, waf=not options.no_waf, access_log=not options.no_access_log) for name, size in sizes.items()}
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for name, size in sizes.items():
        print(f"{name}: {size.requests_per_second:,.0f} requests a second, {size.batch_gb:,.0f} GB of tables a month")
        for item, dollars in found[name].items():
            if dollars:
                print(f"  {dollars:9,.2f}  {item}")
        print(f"  {sum(found[name].values()):9,.2f}  a month, after {size.days} days of collecting")
        alone = replicas(size) * HOURS * PRICES["sagemaker_ml_c5_xlarge_hour"]
        print(f"  {alone:9,.2f}  {replicas(size)} instances ml.c5.xlarge of SageMaker alone would cost\n")


if __name__ == "__main__":
    main()
