"""Stage 4 with FSDP on CPUs: accelerate shares weights out over accelerators alone, so that each
process says it has one. ACCELERATE_TORCH_DEVICE=cpu says where the weights really are.
"""

import runpy

import torch
from accelerate.state import AcceleratorState, DistributedType, PartialState

if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda self, *options: ("gloo", DistributedType.MULTI_GPU)
    runpy.run_module("langadapt_utils.training", run_name="__main__", alter_sys=True)
    print(f"shared out: {AcceleratorState().distributed_type.value}")
