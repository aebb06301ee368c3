"""Never reads what it is told."""

import time

while True:
    time.sleep(600)
