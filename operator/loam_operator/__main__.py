from loam_operator.main import run
from loam_operator.settings import Settings

run(Settings())
