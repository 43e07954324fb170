"""The fleet in virtual time: the controller and replicas that serve, with every step priced, not run."""

from millrace.simulate.engine import ServerSpec
from millrace.simulate.faults import parse_faults
from millrace.simulate.fleet import servers
from millrace.simulate.job import Job, jobs_of
from millrace.simulate.run import Simulation, simulate
from millrace.simulate.server import Server
from millrace.simulate.sessions import Sessions, conversations_of
from millrace.simulate.surroundings import Surroundings
from millrace.simulate.ties import Ties
from millrace.simulate.world import World

__all__ = [
    "Job",
    "Server",
    "ServerSpec",
    "Sessions",
    "Simulation",
    "Surroundings",
    "Ties",
    "World",
    "conversations_of",
    "jobs_of",
    "parse_faults",
    "servers",
    "simulate",
]
