from .align import align_face as align_face
from .crop import Crop as Crop
from .detection import DetectOptions as DetectOptions
from .detection import Detector as Detector
from .detectors import load_detector as load_detector
from .stream import FaceStream as FaceStream
