# shellcheck shell=bash
# Which packages kelp needs on which distribution; sourced by quickstart and check.

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

# The package manager of this host, "" when it is none of the known ones.
package_manager() {
  local name
  for name in apt-get dnf pacman zypper apk; do
    if command -v "$name" >/dev/null 2>&1; then
      echo "$name"
      return
    fi
  done
}

# packages_of MANAGER build|run|test: one name per word.
packages_of() {
  case "$1:$2" in
    apt-get:build) echo g++ meson ninja-build pkg-config python3 libfmt-dev nlohmann-json3-dev doctest-dev \
      libtomlplusplus-dev libseccomp-dev libcurl4-openssl-dev libssl-dev libarchive-dev liblzma-dev libzstd-dev zlib1g-dev libisal-dev ;;
    apt-get:run) echo uidmap slirp4netns ca-certificates ;;
    apt-get:test) echo zsh fish clang libclang-rt-dev clang-format ccache shellcheck python3-pytest python3-pytest-xdist busybox-static \
      docker-registry skopeo buildah containerd apache2-utils openssl curl zstd mmdebstrap fuse-overlayfs btrfs-progs xfsprogs crun runc podman iproute2 procps git \
      golang-go golang-github-google-uuid-dev golang-github-mrunalp-fileutils-dev golang-github-opencontainers-specs-dev \
      golang-github-hashicorp-go-multierror-dev golang-github-urfave-cli-dev golang-gocapability-dev \
      golang-github-opencontainers-selinux-dev golang-github-sirupsen-logrus-dev golang-golang-x-sys-dev golang-github-containers-common \
      golang-github-blang-semver-dev golang-github-xeipuuv-gojsonschema-dev golang-github-stretchr-testify-dev \
      "$([ "$(uname -m)" != x86_64 ] || echo user-mode-linux)" ;;

    dnf:build) echo gcc-c++ libstdc++-static glibc-static meson ninja-build pkgconf-pkg-config python3 fmt-devel json-devel \
      doctest-devel tomlplusplus-devel libseccomp-devel libseccomp-static libcurl-devel openssl-devel \
      libarchive-devel xz-devel libzstd-devel zlib-devel isa-l-devel ;;
    dnf:run) echo shadow-utils slirp4netns ca-certificates ;;
    dnf:test) echo zsh fish clang compiler-rt clang-tools-extra ccache ShellCheck python3-pytest python3-pytest-xdist busybox skopeo \
      httpd-tools openssl curl zstd fuse-overlayfs crun runc iproute procps-ng git ;;

    pacman:build) echo gcc meson ninja pkgconf python fmt nlohmann-json doctest tomlplusplus libseccomp curl openssl \
      libarchive xz zstd zlib isa-l ;;
    pacman:run) echo shadow slirp4netns ca-certificates ;;
    pacman:test) echo zsh fish clang compiler-rt ccache shellcheck python-pytest python-pytest-xdist busybox skopeo apache openssl fuse-overlayfs \
      crun runc iproute2 procps-ng git ;;

    zypper:build) echo gcc-c++ glibc-devel-static meson ninja pkgconf python3 fmt-devel nlohmann_json-devel \
      doctest-devel tomlplusplus-devel libseccomp-devel libcurl-devel libopenssl-devel libarchive-devel xz-devel libzstd-devel \
      zlib-devel ;;
    zypper:run) echo shadow slirp4netns ca-certificates ;;
    zypper:test) echo zsh fish clang ccache ShellCheck python3-pytest python3-pytest-xdist busybox-static skopeo apache2-utils \
      openssl curl zstd fuse-overlayfs crun runc iproute2 procps git ;;

    apk:build) echo g++ meson ninja pkgconf python3 fmt-dev nlohmann-json doctest-dev tomlplusplus-dev \
      libseccomp-dev libseccomp-static curl-dev openssl-dev libarchive-dev xz-dev zstd-dev zlib-dev linux-headers bash ;;
    apk:run) echo shadow-subids shadow-uidmap slirp4netns ca-certificates ;;
    apk:test) echo zsh fish clang compiler-rt clang-extra-tools ccache shellcheck py3-pytest py3-pytest-xdist busybox-static skopeo apache2-utils \
      openssl curl zstd fuse-overlayfs crun runc iproute2 procps git ;;
  esac
}

is_installed() {
  case "$1" in
    apt-get) [ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$2" 2>/dev/null)" = "ii " ] ;;
    dnf | zypper) rpm -q "$2" >/dev/null 2>&1 ;;
    pacman) pacman -Q "$2" >/dev/null 2>&1 ;;
    apk) apk info -e "$2" >/dev/null 2>&1 ;;
  esac
}

# Runs a command as root: as we are, through sudo, or says what would have to be run.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    sudo "$@"
  else
    say "this needs root, and sudo cannot be used here; run:"
    say "  $*"
    return 1
  fi
}

# install_packages KIND…: installs what is missing of the kinds build, run, test.
install_packages() {
  local manager kind package missing=()
  manager=$(package_manager)
  if [ -z "$manager" ]; then
    say "this distribution's package manager is not known here. kelp needs, under the names that Debian gives them:"
    for kind in "$@"; do say "  $(packages_of apt-get "$kind")"; done
    say "continuing with what is there"
    return 0
  fi
  for kind in "$@"; do
    for package in $(packages_of "$manager" "$kind"); do
      is_installed "$manager" "$package" || missing+=("$package")
    done
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  say "installing ${missing[*]}"
  case "$manager" in
    apt-get)
      # The lists may be absent (a container) or old: fetch them only when the first try fails.
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2 || {
        as_root apt-get update >&2
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2
      } ;;
    dnf) as_root dnf install -y "${missing[@]}" >&2 ;;
    pacman) as_root pacman -S --needed --noconfirm "${missing[@]}" >&2 ;;
    zypper) as_root zypper --non-interactive install "${missing[@]}" >&2 ;;
    apk) as_root apk add "${missing[@]}" >&2 ;;
  esac || die "the packages could not be installed"
}
