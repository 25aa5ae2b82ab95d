#include "engine/users.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <deque>

#include <fmt/format.h>

#include "base/error.h"
#include "base/text.h"
#include "sys/lock.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {

namespace {

struct PasswdLine {
  std::string name, home;
  std::uint32_t uid = 0, gid = 0;
};
struct GroupLine {
  std::string name;
  std::uint32_t gid = 0;
  std::vector<std::string> members;
};

std::optional<std::uint32_t> to_id(std::string_view text) {
  const auto number = to_int(text, 0, 4294967294);
  return number ? std::optional(static_cast<std::uint32_t>(*number)) : std::nullopt;
}

std::vector<PasswdLine> parse_passwd(std::string_view text) {
  std::vector<PasswdLine> lines;
  for (const std::string& line : split(text, '\n')) {
    const auto parts = split(line, ':');
    if (parts.size() < 6) continue;
    const auto uid = to_id(parts[2]);
    const auto gid = to_id(parts[3]);
    if (uid && gid) lines.push_back({parts[0], parts[5], *uid, *gid});
  }
  return lines;
}

std::vector<GroupLine> parse_group(std::string_view text) {
  std::vector<GroupLine> lines;
  for (const std::string& line : split(text, '\n')) {
    const auto parts = split(line, ':');
    if (parts.size() < 3) continue;
    const auto gid = to_id(parts[2]);
    if (gid) lines.push_back({parts[0], *gid, parts.size() > 3 ? split(parts[3], ',') : std::vector<std::string>{}});
  }
  return lines;
}

std::uint32_t group_id(std::string_view group, const std::vector<GroupLine>& groups) {
  for (const GroupLine& line : groups)
    if (line.name == group) return line.gid;
  if (const auto number = to_id(group)) return *number;
  throw Error(fmt::format("unable to find group {}: no matching entries in group file", printable(group)),
              kExitCannotInvoke);
}

}  // namespace

ResolvedUser resolve_user(std::string_view user, const store::Strings& group_add, std::string_view passwd,
                          std::string_view group) {
  const std::vector<PasswdLine> users = parse_passwd(passwd);
  const std::vector<GroupLine> groups = parse_group(group);
  const size_t colon = user.find(':');
  const std::string_view name = user.substr(0, colon);
  const std::string_view wanted_group = colon == std::string_view::npos ? "" : user.substr(colon + 1);

  ResolvedUser found;
  const auto number = name.empty() ? std::optional<std::uint32_t>(0) : to_id(name);
  auto line = std::find_if(users.begin(), users.end(), [&](const PasswdLine& entry) { return entry.name == name; });
  if (line == users.end() && number)
    line = std::find_if(users.begin(), users.end(), [&](const PasswdLine& entry) { return entry.uid == *number; });
  if (line != users.end()) {
    found.uid = line->uid;
    found.gid = line->gid;
    found.name = line->name;
    found.in_passwd = true;
    if (!line->home.empty()) found.home = line->home;
  } else if (number) {
    found.uid = *number;
    if (found.uid == 0) found.home = "/root";
  } else {
    throw Error(fmt::format("unable to find user {}: no matching entries in passwd file", printable(name)),
                kExitCannotInvoke);
  }
  if (!wanted_group.empty()) {
    found.gid = group_id(wanted_group, groups);
  } else if (found.in_passwd) {
    // As login does it; a group given by hand replaces the membership.
    for (const GroupLine& entry : groups)
      if (entry.gid != found.gid && std::count(entry.members.begin(), entry.members.end(), found.name) > 0)
        found.groups.push_back(entry.gid);
  }
  // Without it in the list, a set-group-id program would take the group off, and with it what "group" may not do.
  if (!user.empty()) found.groups.push_back(found.gid);
  for (const std::string& extra : group_add) found.groups.push_back(group_id(extra, groups));
  std::sort(found.groups.begin(), found.groups.end());
  found.groups.erase(std::unique(found.groups.begin(), found.groups.end()), found.groups.end());
  return found;
}

LayeredRoot::LayeredRoot(const std::vector<std::string>& directories) {
  for (const std::string& path : directories) {
    Fd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (fd) roots_.push_back(std::move(fd));
  }
}

/// One directory is no stack: the kernel walks it, and only the last step may be a whiteout that hides nothing.
std::optional<LayeredRoot::Entry> LayeredRoot::find_in_one(std::string_view path) const {
  Fd fd(sys::try_open_in_root(roots_.front().get(), path, O_PATH));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) < 0 || sys::is_whiteout(fd.get())) return std::nullopt;
  return Entry{std::move(fd), S_ISDIR(info.st_mode), info.st_mode};
}

std::optional<LayeredRoot::Entry> LayeredRoot::find(std::string_view path) const {
  if (roots_.size() == 1) return find_in_one(path);
  std::deque<std::string> todo;
  for (std::string& part : split(path, '/')) todo.push_back(std::move(part));
  // One element per directory on the way: the descriptors of that directory in each layer that takes part in it.
  std::vector<std::vector<Fd>> way(1);
  for (const Fd& root : roots_) way.back().emplace_back(::fcntl(root.get(), F_DUPFD_CLOEXEC, 3));
  int links = 0;
  while (!todo.empty()) {
    const std::string part = std::move(todo.front());
    todo.pop_front();
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (way.size() > 1) way.pop_back();
      continue;
    }
    std::vector<Fd> next;
    for (const Fd& dir : way.back()) {
      struct stat info {};
      Fd fd(::openat(dir.get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
      if (!fd || ::fstat(fd.get(), &info) < 0) continue;
      if (sys::is_whiteout_at(dir.get(), part.c_str())) break;
      if (S_ISDIR(info.st_mode)) {
        const bool opaque = sys::is_opaque(fd.get());
        next.push_back(std::move(fd));
        if (opaque) break;
        continue;
      }
      if (!next.empty()) break;  // a directory above hides the file below
      if (S_ISLNK(info.st_mode)) {
        char target[PATH_MAX];
        const ssize_t length = ::readlinkat(fd.get(), "", target, sizeof target);
        if (length < 0 || ++links > 40) return std::nullopt;
        const std::vector<std::string> more = split(std::string_view(target, static_cast<size_t>(length)), '/');
        if (length > 0 && target[0] == '/') way.resize(1);
        todo.insert(todo.begin(), more.begin(), more.end());
        goto next_part;
      }
      for (const std::string& rest : todo)
        if (!rest.empty() && rest != ".") return std::nullopt;
      return Entry{std::move(fd), false, info.st_mode};
    }
    if (next.empty()) return std::nullopt;
    way.push_back(std::move(next));
  next_part:;
  }
  if (way.back().empty()) return std::nullopt;
  struct stat info {};
  ::fstat(way.back().front().get(), &info);
  return Entry{std::move(way.back().front()), true, info.st_mode};
}

std::optional<std::string> LayeredRoot::read(std::string_view path, size_t max) const {
  const auto [known, first] = read_.try_emplace(std::string(path));
  if (!first) return known->second;
  const auto entry = find(path);
  if (!entry || !S_ISREG(entry->mode)) return std::nullopt;
  const Fd fd(::open(("/proc/self/fd/" + std::to_string(entry->fd.get())).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return std::nullopt;  // owned by another id and not readable for us: as if it were not there
  known->second = sys::read_rest(fd.get(), path, max);
  return known->second;
}

}  // namespace kelp::engine
