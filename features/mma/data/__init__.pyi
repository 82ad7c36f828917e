from .face_rows import FaceRows as FaceRows
from .labelled import Labelled as Labelled
from .packs import Pack as Pack
from .packs import read_pack as read_pack
