#include "base/program_path.h"

#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "kelp_config.h"

namespace kelp {
namespace {

bool is_file(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode);
}

std::string own_directory() {
  char buffer[PATH_MAX];
  const ssize_t n = ::readlink("/proc/self/exe", buffer, sizeof buffer);
  if (n <= 0 || static_cast<size_t>(n) >= sizeof buffer) return {};
  const std::string path(buffer, static_cast<size_t>(n));
  return path.substr(0, path.rfind('/'));
}

std::string first_file(const std::vector<std::string>& places, std::string_view name) {
  for (const auto& place : places) {
    if (place.empty()) continue;
    std::string path = place + "/" + std::string(name);
    if (is_file(path)) return path;
  }
  Error error(fmt::format("{} of kelp was not found in {}", name, join(places, ", ")));
  error.with_hint("install kelp again, or set KELP_LIBEXEC and KELP_DATA to its directories");
  throw error;
}

std::string from_environment(const char* variable) {
  const char* value = ::secure_getenv(variable);
  return value != nullptr ? std::string(value) : std::string();
}

}  // namespace

std::string own_program(std::string_view name) {
  const std::string self = own_directory();
  return first_file({from_environment("KELP_LIBEXEC"), self, self + "/../libexec/kelp", self + "/../../bin",
                     KELP_LIBEXEC_DIR, KELP_BIN_DIR},
                    name);
}

std::string own_data(std::string_view name) {
  const std::string self = own_directory();
  return first_file({from_environment("KELP_DATA"), self + "/../share/kelp", self + "/../../share/kelp", self + "/data",
                     KELP_DATA_DIR},
                    name);
}

std::string find_in_path(std::string_view name) {
  if (name.find('/') != std::string_view::npos)
    return ::access(std::string(name).c_str(), X_OK) == 0 ? std::string(name) : std::string();
  const char* path = ::getenv("PATH");
  std::string all = path != nullptr ? path : "";
  all += ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
  for (const auto& directory : split(all, ':')) {
    if (directory.empty() || directory[0] != '/') continue;
    std::string candidate = directory + "/" + std::string(name);
    if (is_file(candidate) && ::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return {};
}

}  // namespace kelp
