"""Workloads by name: every module of this package that defines `create(options, data_root) -> Workload`."""

from automc.workloads.registry import create_workload, workload_names

__all__ = ["create_workload", "workload_names"]
