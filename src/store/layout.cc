#include "store/layout.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "sys/lock.h"
#include "sys/safe_path.h"
#include "sys/subid.h"

namespace kelp::store {

namespace {

constexpr int kStoreVersion = 1;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string home_directory() {
  std::string home = environment("HOME");
  if (home.empty()) {
    if (const auto entry = sys::own_passwd_entry()) home = entry->home;
  }
  if (home.empty() || home.front() != '/') {
    UsageError error("cannot tell where to keep the store: HOME is not set");
    error.with_hint("set HOME, or give --root and --runroot");
    throw error;
  }
  return sys::clean_path(home);
}

std::string below_home(const char* variable, const char* fallback) {
  const std::string value = environment(variable);
  if (!value.empty() && value.front() == '/') return sys::clean_path(value);
  return home_directory() + fallback;
}

/// Ours alone: sockets and state in a directory that others can write to would be theirs.
bool private_directory(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == ::geteuid() &&
         (info.st_mode & 0022) == 0;
}

/// su, sudo -E and cron leave XDG_RUNTIME_DIR unset or another user's; then a private directory of our own is used.
std::string run_directory(const std::string& data) {
  const std::string session = environment("XDG_RUNTIME_DIR");
  if (!session.empty() && session.front() == '/' && private_directory(session))
    return sys::clean_path(session) + "/kelp";
  const std::string standard = "/run/user/" + std::to_string(::geteuid());
  if (private_directory(standard)) return standard + "/kelp";
  const std::string temporary = "/tmp/kelp-run-" + std::to_string(::geteuid());
  if ((::mkdir(temporary.c_str(), 0700) == 0 || errno == EEXIST) && private_directory(temporary)) return temporary;
  return data + "/run-" + boot_id();  // keyed by boot: after a reboot nothing in it is believed
}

std::string absolute(const std::string& path) {
  if (starts_with(path, "/")) return sys::clean_path(path);
  char* here = ::getcwd(nullptr, 0);
  if (here == nullptr) throw_errno("find the current directory");
  const std::string full = std::string(here) + "/" + path;
  std::free(here);
  return sys::clean_path(full);
}

void write_once(const std::string& path, std::string_view content) {
  if (::access(path.c_str(), F_OK) < 0) sys::replace_locked_file(path, content, 0644);
}

void make_top(const std::string& path, const char* setting) {
  try {
    sys::mkdirs(path, 0700);
  } catch (Error& error) {
    error.with_hint(fmt::format("{} names a directory that can be written to", setting));
    throw;
  }
}

std::string id_from(const char* path) {
  const auto text = sys::read_small_file(path);
  std::string digits;
  for (const char letter : text.value_or(""))
    if (std::isxdigit(static_cast<unsigned char>(letter)) != 0) digits += letter;
  return digits.substr(0, 32);
}

}  // namespace

Layout resolve(const std::optional<std::string>& root, const std::optional<std::string>& run_root) {
  Layout layout;
  layout.data = root ? absolute(*root) : below_home("XDG_DATA_HOME", "/.local/share") + "/kelp";
  layout.cache = below_home("XDG_CACHE_HOME", "/.cache") + "/kelp";
  layout.run = run_root ? absolute(*run_root) : run_directory(layout.data);
  return layout;
}

bool check_version(const Layout& layout) {
  const auto text = sys::read_small_file(layout.data + "/version");
  if (!text) return false;
  const auto found = to_int(trim(*text), 0);
  if (!found) throw_error("the store {} has a damaged version file", layout.data);
  if (*found > kStoreVersion) {
    Error error(fmt::format("the store {} was written by a newer kelp (version {}, this one knows {})", layout.data,
                            *found, kStoreVersion));
    error.with_hint("use the newer kelp, or another store with --root");
    throw error;
  }
  return true;
}

void prepare(const Layout& layout) {
  if (!check_version(layout)) {
    make_top(layout.data, "XDG_DATA_HOME, or --root,");
    for (const std::string& path : {layout.blobs(), layout.layers(), layout.containers(), layout.containers() + "/.new",
                                    layout.names(), layout.volumes(), layout.secrets(), layout.trash(), layout.locks()})
      sys::mkdirs(path, 0700);
    const auto lock = sys::FileLock::exclusive(layout.locks() + "/images");
    write_once(layout.oci_layout(), "{\"imageLayoutVersion\":\"1.0.0\"}");
    write_once(layout.index(),
               "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\","
               "\"manifests\":[]}");
    write_once(layout.data + "/version",
               std::to_string(kStoreVersion) + "\n");  // last: its presence says that all is there
  }
  if (::access(layout.run.c_str(), W_OK) < 0) make_top(layout.run, "XDG_RUNTIME_DIR, or --runroot,");
  if (::access(layout.cache.c_str(), F_OK) == 0) return;
  try {
    sys::mkdirs(layout.cache, 0700);
  } catch (const Error& error) {
    log::debug("no cache: {}",
               error.message());  // a home that cannot be written to: everything works, some of it slower
  }
}

const std::string& boot_id() {
  static const std::string id = id_from("/proc/sys/kernel/random/boot_id");
  return id;
}

const std::string& machine_id() {
  static const std::string id = id_from("/etc/machine-id");
  return id;
}

}  // namespace kelp::store
