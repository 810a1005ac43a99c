"""One thread: results repeat, and the machine has other work to do."""

import torch

torch.set_num_threads(1)
