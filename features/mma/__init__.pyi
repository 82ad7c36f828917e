from .config import MmaConfig as MmaConfig
from .config import read_config as read_config
from .network import MMANetwork as MMANetwork
from .network import NetworkConfig as NetworkConfig
from .weights import load_weights as load_weights
from .weights import save_weights as save_weights
