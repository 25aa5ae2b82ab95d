# shellcheck shell=bash
# kelp is a tool of ordinary users. Where the caller is root, these make and become one; sourced by quickstart, check
# and tests/run.

test_user=${KELP_TEST_USER:-kelp-test}

# Makes the test user with a subordinate id range, unless it is there.
make_test_user() {
  if ! id -u "$test_user" >/dev/null 2>&1; then
    if command -v useradd >/dev/null 2>&1; then
      useradd --create-home --shell /bin/bash "$test_user"
    else
      adduser -D "$test_user"
    fi
  fi
  give_range "$test_user" /etc/subuid
  give_range "$test_user" /etc/subgid
}

# give_range USER FILE: 65536 ids after the last range in the file, unless the user has one.
give_range() {
  touch "$2"
  if ! grep -q "^$1:" "$2"; then
    awk -F: -v user="$1" 'BEGIN { next_id = 100000 } { end = $2 + $3; if (end > next_id) next_id = end }
      END { print user ":" next_id ":65536" }' "$2" >"$2.kelp-new"
    cat "$2.kelp-new" >>"$2"
    rm "$2.kelp-new"
  fi
}

# Gives the two device nodes the modes that distributions give them.
open_devices() {
  if [ ! -e /dev/net/tun ]; then
    mkdir -p /dev/net
    mknod /dev/net/tun c 10 200 2>/dev/null || true
  fi
  [ -e /dev/fuse ] || mknod /dev/fuse c 10 229 2>/dev/null || true
  local node
  for node in /dev/net/tun /dev/fuse; do
    if [ -e "$node" ]; then chmod 0666 "$node" || true; fi
  done
}

# Makes XDG_RUNTIME_DIR of a user where no login manager did; prints its path.
make_runtime_dir() {
  local directory
  directory=/run/user/$(id -u "$1")
  mkdir -p "$directory"
  chown "$1:" "$directory"
  chmod 0700 "$directory"
  echo "$directory"
}

# as_user USER COMMAND…: with the environment of a fresh login, no session bus. Keeps the settings of the tests.
as_user() {
  local user=$1 home runtime name keep=()
  shift
  home=$(getent passwd "$user" | cut -d: -f6)
  runtime=$(make_runtime_dir "$user")
  for name in CI KELP_BUILD KELP_TEST_FULL KELP_TEST_SEED KELP_TEST_ROOT_AGENT KELP_TEST_CACHE KELP_UML_KERNEL KELP_ACCEPT \
    RUNTIME ASAN_OPTIONS UBSAN_OPTIONS http_proxy https_proxy no_proxy NO_COLOR; do
    if [ -n "${!name:-}" ]; then keep+=("$name=${!name}"); fi
  done
  (
    cd "${as_user_directory:-/}" || exit
    exec setpriv --reuid "$user" --regid "$user" --init-groups env -i HOME="$home" USER="$user" LOGNAME="$user" \
      SHELL=/bin/bash TERM="${TERM:-dumb}" LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin \
      XDG_RUNTIME_DIR="$runtime" "${keep[@]}" "$@"
  )
}

# start_root_agent TOP USER: root's part of the tests (tests/harness/root_agent.py) until this shell ends.
start_root_agent() {
  agent_directory=$(mktemp -d /tmp/kt-agent-XXXXXX)
  chmod 0711 "$agent_directory"
  /usr/bin/env python3 "$1/tests/harness/root_agent.py" "$agent_directory/socket" "$(id -u "$2")" &
  agent=$!
  trap 'kill "$agent" 2>/dev/null && wait "$agent" || true; rm -rf "$agent_directory"' EXIT
  for _ in $(seq 300); do
    if [ -S "$agent_directory/socket" ] || ! kill -0 "$agent" 2>/dev/null; then break; fi
    sleep 0.1
  done
  if [ -S "$agent_directory/socket" ]; then export KELP_TEST_ROOT_AGENT=$agent_directory/socket; fi
}
