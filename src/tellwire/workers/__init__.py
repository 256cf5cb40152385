"""Several processes on one port: who starts them, looks after them and ends them, and what each of them runs."""

from tellwire.workers.supervisor import GaveUp, Supervisor, supervise

__all__ = ["GaveUp", "Supervisor", "supervise"]
