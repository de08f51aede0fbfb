"""Fit the profiles of hardware_profiles/ that come from ncnn's benchmark table, all anew.

    python scripts/import_devices.py --data-root "$AUTOMC_DATA" [--only NAME,...]

Rows are those of `automc profile import ncnn`; the same table gives the same files.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from automc.importing.assemble import import_device
from automc.importing.ncnn import read_ncnn
from automc.profiles import DeviceKind, shipped_folder

TABLE = Path("device_latency/ncnn/ncnn_benchmark.csv.gz")
MOMENT_S = 1795651200.0  # 2026-11-26, when this list was last drawn up: no clock, so that files are reproducible


@dataclass(frozen=True)
class Entry:
    name: str
    device: str
    kind: DeviceKind
    threads: int = 1
    gpu: bool = False


SBC: DeviceKind = "single-board computer"
ENTRIES = (
    Entry("ncnn_epyc_7742_1t", "AMD EPYC 7742", "server CPU"),
    Entry("ncnn_azure_d64as_v7_1t", "Azure Standard D64as v7", "server CPU"),
    Entry("ncnn_azure_d64ps_v6_1t", "Azure Standard D64ps v6", "server CPU"),
    Entry("ncnn_azure_d64s_v6_1t", "Azure Standard D64s v6", "server CPU"),
    Entry("ncnn_aws_c5_4xlarge_8t", "AWS c5.4xlarge", "server CPU", 8),
    Entry("ncnn_kunpeng_920_7260_1t", "Kunpeng 920 7260", "server CPU"),
    Entry("ncnn_ryzen_5700g_1t", "Ryzen 5700g", "desktop CPU"),
    Entry("ncnn_macbook_m3_1t", "MacBook Air (13-inch, M3", "laptop CPU"),
    Entry("ncnn_raspberry_pi_zero_2_1t", "Raspberry Pi Zero 2", SBC),
    Entry("ncnn_raspberry_pi_3b_1t", "Raspberry Pi 3 Model B+", SBC),
    Entry("ncnn_raspberry_pi_4_1t", "Raspberry Pi 4 Model B", SBC),
    Entry("ncnn_raspberry_pi_5_1t", "Raspberry Pi 5 Broadcom BCM2712, Cortex", SBC),
    Entry("ncnn_raspberry_pi_5_4t", "Raspberry Pi 5 Broadcom BCM2712, Cortex", SBC, 4),
    Entry("ncnn_rk3566_1t", "OrangePicm4", SBC),
    Entry("ncnn_rk3399_1t", "Rockchip RK3399 (Cortex-A72 1.8GHz x 2 + Cortex-A53 1.5GHz x 4)", SBC),
    Entry("ncnn_rk3588_1t", "Rockchip RK3588 (Quad Core A76 2.4GHz + Quad Core A55 1.8GHz)", SBC),
    Entry("ncnn_khadas_vim3_1t", "Khadas VIM3", SBC),
    Entry("ncnn_arduino_uno_q_1t", "Arduino UNO Q", SBC),
    Entry("ncnn_visionfive2_4t", "VisionFive2", SBC, 4),
    Entry("ncnn_snapdragon_410_1t", "Snapdragon 410", "phone"),
    Entry("ncnn_snapdragon_810_1t", "Snapdragon 810", "phone"),
    Entry("ncnn_snapdragon_821_1t", "Snapdragon 821", "phone"),
    Entry("ncnn_snapdragon_855_1t", "Snapdragon 855+", "phone"),
    Entry("ncnn_snapdragon_8gen2_1t", "Snapdragon 8 Gen 2", "phone"),
    Entry("ncnn_dimensity_9300_1t", "Dimensity 9300", "phone"),
    Entry("ncnn_dimensity_9300_4t", "Dimensity 9300", "phone", 4),
    Entry("ncnn_jetson_agx_orin_cpu_1t", "Jetson AGX Orin", SBC),
    Entry("ncnn_jetson_tx2_nx_gpu", "Jetson TX2 NX", "embedded GPU", 1, True),
    Entry("ncnn_jetson_nano_gpu", "Jetson Nano", "embedded GPU", 1, True),
    Entry("ncnn_jetson_orin_nano_gpu", "Jetson Orin Nano", "embedded GPU", 1, True),
    Entry("ncnn_dimensity_9300_gpu", "Dimensity 9300", "embedded GPU", 1, True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--only", help="names, with commas between")
    parser.add_argument("--folder", type=Path, default=shipped_folder("hardware_profiles"))
    arguments = parser.parse_args()
    for entry in ENTRIES:
        if arguments.only and entry.name not in arguments.only.split(","):
            continue
        rows, device = read_ncnn(
            arguments.data_root / TABLE, entry.device, entry.kind, threads=entry.threads, gpu=entry.gpu
        )
        profile = import_device(rows, device, entry.name, arguments.folder / entry.name, seconds=MOMENT_S)
        held, told = profile.held_out[0], profile.imported
        assert told is not None
        print(
            f"{entry.name:32} n={held.networks} MAPE {held.mape_percent:5.1f} %, {held.within_10_percent:.0%} within "
            f"10 %, rank {held.rank_correlation:.3f} covered {held.interval_coverage or 0:.0%}  {told.use}: "
            f"{told.reason}",
            flush=True,
        )


if __name__ == "__main__":
    main()
