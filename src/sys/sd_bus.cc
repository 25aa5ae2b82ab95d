// The little of D-Bus that a scope needs: EXTERNAL authentication, five method calls, one signal.
//
// libsystemd would do the same, but a static program cannot load it, and loading costs more than this whole exchange.
// Two ways lead to systemd: its private socket (peer to peer, no bus daemon between), and the message bus.
// source: dbus.freedesktop.org/doc/dbus-specification.html; org.freedesktop.systemd1(5)
#include "sys/sd_bus.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>

#include "base/error.h"
#include "base/log.h"
#include "base/owned.h"
#include "base/text.h"
#include "sys/idmap.h"

namespace kelp::sys {
namespace {

constexpr size_t kMaxMessage = 1 << 20;
constexpr const char* kService = "org.freedesktop.systemd1";
constexpr const char* kManagerPath = "/org/freedesktop/systemd1";
constexpr const char* kManager = "org.freedesktop.systemd1.Manager";

enum MessageType : unsigned char { kCall = 1, kReturn = 2, kError = 3, kSignal = 4 };
enum Field : unsigned char {
  kPath = 1,
  kInterface = 2,
  kMember = 3,
  kErrorName = 4,
  kReplySerial = 5,
  kDestination = 6,
  kSignature = 8
};

/// Writes values in D-Bus' alignment, in the machine's byte order (which the header names).
class Writer {
 public:
  void align(size_t n) { data_.append((n - data_.size() % n) % n, '\0'); }
  void byte(unsigned char value) { data_ += static_cast<char>(value); }
  void u32(std::uint32_t value) {
    align(4);
    raw(&value, sizeof value);
  }
  void u64(std::uint64_t value) {
    align(8);
    raw(&value, sizeof value);
  }
  void boolean(bool value) { u32(value ? 1 : 0); }
  void string(std::string_view text) {
    u32(static_cast<std::uint32_t>(text.size()));
    data_ += text;
    data_ += '\0';
  }
  void signature(std::string_view text) {
    byte(static_cast<unsigned char>(text.size()));
    data_ += text;
    data_ += '\0';
  }
  /// Length is filled in by end_array; element_align 8 for structs.
  size_t begin_array(size_t element_align) {
    u32(0);
    const size_t place = data_.size();
    align(element_align);
    starts_[place] = data_.size();
    return place;
  }
  void end_array(size_t place) {
    const auto length = static_cast<std::uint32_t>(data_.size() - starts_[place]);
    std::memcpy(data_.data() + place - sizeof length, &length, sizeof length);
  }
  void raw(const void* bytes, size_t size) { data_.append(static_cast<const char*>(bytes), size); }
  [[nodiscard]] const std::string& data() const { return data_; }

 private:
  std::string data_;
  std::map<size_t, size_t> starts_;
};

/// Reads what Writer writes; anything beyond the end is an Error.
class Reader {
 public:
  explicit Reader(std::string_view data, size_t at = 0) : data_(data), at_(at) {}
  void align(size_t n) { at_ += (n - at_ % n) % n; }
  unsigned char byte() {
    need(1);
    return static_cast<unsigned char>(data_[at_++]);
  }
  std::uint32_t u32() {
    align(4);
    need(4);
    std::uint32_t value = 0;
    std::memcpy(&value, data_.data() + at_, 4);
    at_ += 4;
    return value;
  }
  std::string string() { return text(u32()); }
  std::string signature() { return text(byte()); }
  [[nodiscard]] size_t at() const { return at_; }
  [[nodiscard]] bool done() const { return at_ >= data_.size(); }

 private:
  void need(size_t n) const {
    if (at_ > data_.size() || data_.size() - at_ < n) throw_error("systemd sent a broken message");
  }
  std::string text(size_t size) {
    need(size + 1);
    std::string value(data_.substr(at_, size));
    at_ += size + 1;
    return value;
  }
  std::string_view data_;
  size_t at_;
};

struct Message {
  unsigned char type = 0;
  std::uint32_t reply_serial = 0;
  std::string member, error_name, signature, body;
};

long now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

/// The uid as the manager sees it: inside a user namespace ours is another one.
std::uint32_t outer_uid() {
  std::uint32_t uid = ::geteuid();
  try {
    map_out(read_id_map("/proc/self/uid_map"), ::geteuid(), uid);
  } catch (const Error&) {
  }
  return uid;
}

std::string runtime_dir() {
  if (const char* dir = ::getenv("XDG_RUNTIME_DIR"); dir != nullptr && *dir == '/') return dir;
  return fmt::format("/run/user/{}", outer_uid());
}

/// Socket of the manager itself, then those of the message bus.
std::vector<std::pair<std::string, bool>> addresses() {
  if (outer_uid() == 0) return {{"/run/systemd/private", false}, {"/run/dbus/system_bus_socket", true}};
  std::vector<std::pair<std::string, bool>> list = {{runtime_dir() + "/systemd/private", false}};
  if (const char* bus = ::getenv("DBUS_SESSION_BUS_ADDRESS"))
    for (const std::string& part : split(bus, ';'))
      if (starts_with(part, "unix:path=")) list.emplace_back(part.substr(10, part.find(',') - 10), true);
  list.emplace_back(runtime_dir() + "/bus", true);
  return list;
}

Fd connect_to(const std::string& path) {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (!socket || path.size() >= sizeof address.sun_path) return Fd();
  path.copy(address.sun_path, path.size());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) return Fd();
  return socket;
}

}  // namespace

struct Systemd::Impl {
  Fd socket;
  bool bus = false;  ///< through a message bus: needs Hello and a destination
  std::uint32_t serial = 0;
  std::string input;
  std::string job, unit;                        ///< of request_scope
  std::uint32_t scope_serial = 0;               ///< its call, not yet answered
  std::string last_error;                       ///< D-Bus name of the error that a call was answered with
  std::map<std::string, std::string> finished;  ///< jobs that ended → result

  void send_all(std::string_view data) const {
    while (!data.empty()) {
      const ssize_t n = ::send(socket.get(), data.data(), data.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw_errno("send to systemd");
      data.remove_prefix(static_cast<size_t>(n));
    }
  }

  void fill(long deadline) {
    pollfd waiting{socket.get(), POLLIN, 0};
    const long left = deadline - now_ms();
    const int ready = left > 0 ? ::poll(&waiting, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) return;
    if (ready < 0) throw_errno("wait for systemd");
    if (ready == 0) throw_error("systemd did not answer in time");
    char buffer[8192];
    const ssize_t n = ::recv(socket.get(), buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) return;
    if (n < 0) throw_errno("read from systemd");
    if (n == 0) throw_error("systemd closed the connection");
    input.append(buffer, static_cast<size_t>(n));
  }

  std::string line(long deadline) {
    for (;;) {
      if (const size_t end = input.find("\r\n"); end != std::string::npos) {
        std::string text = input.substr(0, end);
        input.erase(0, end + 2);
        return text;
      }
      if (input.size() > 4096) throw_error("systemd does not speak D-Bus");
      fill(deadline);
    }
  }

  /// The kernel says who we are, so the identity stays empty: right in a user namespace, too, where our uid is another
  /// one. All in one piece, as libsystemd does it: a manager that had just started left the first call after a
  /// BEGIN of its own unanswered.
  void authenticate() {
    send_all(std::string_view("\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", 29));
    for (const long deadline = now_ms() + 5000;;) {
      const std::string answer = line(deadline);
      if (starts_with(answer, "OK ")) return;
      if (answer != "DATA") throw_error("systemd refuses the connection: {}", printable(answer));
    }
  }

  std::uint32_t send_call(const char* path, const char* interface, const char* member, const std::string& signature,
                          const std::string& body, const char* destination = kService) {
    Writer out;
    out.byte(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 'l' : 'B');
    out.byte(kCall);
    out.byte(0);
    out.byte(1);  // protocol version
    out.u32(static_cast<std::uint32_t>(body.size()));
    out.u32(++serial);
    const size_t fields = out.begin_array(8);
    const auto field = [&](Field code, const char* type, std::string_view value) {
      out.align(8);
      out.byte(code);
      out.signature(type);
      if (*type == 'g')
        out.signature(value);
      else
        out.string(value);
    };
    field(kPath, "o", path);
    field(kInterface, "s", interface);
    field(kMember, "s", member);
    if (bus) field(kDestination, "s", destination);
    if (!signature.empty()) field(kSignature, "g", signature);
    out.end_array(fields);
    out.align(8);
    out.raw(body.data(), body.size());
    send_all(out.data());
    return serial;
  }

  /// The next message, with JobRemoved signals kept aside.
  Message receive(long deadline) {
    for (;;) {
      if (input.size() >= 16) {
        Reader head(input);
        const bool little = head.byte() == 'l';
        if (little != (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)) throw_error("systemd has another byte order");
        Message message;
        message.type = head.byte();
        head.byte();
        head.byte();
        const size_t body_size = head.u32();
        head.u32();
        const size_t fields_size = head.u32();
        const size_t body_start = (16 + fields_size + 7) / 8 * 8;
        if (body_size > kMaxMessage || fields_size > kMaxMessage)
          throw_error("systemd sent a message that is too large");
        if (input.size() >= body_start + body_size) {
          read_fields(std::string_view(input).substr(0, 16 + fields_size), message);
          message.body = input.substr(body_start, body_size);
          input.erase(0, body_start + body_size);
          return message;
        }
      }
      fill(deadline);
    }
  }

  static void read_fields(std::string_view data, Message& message) {
    Reader in(data, 16);
    while (!in.done()) {
      in.align(8);
      if (in.done()) return;
      const unsigned char code = in.byte();
      const std::string type = in.signature();
      if (type == "u") {
        const std::uint32_t value = in.u32();
        if (code == kReplySerial) message.reply_serial = value;
      } else if (type == "g") {
        message.signature = in.signature();
      } else if (type == "s" || type == "o") {
        const std::string value = in.string();
        if (code == kMember) message.member = value;
        if (code == kErrorName) message.error_name = value;
      } else {
        throw_error("systemd sent a header field of type {}", quoted(type));
      }
    }
  }

  void note_signal(const Message& message) {
    if (message.type != kSignal || message.member != "JobRemoved") return;
    Reader in(message.body);  // uoss: id, job, unit, result
    in.u32();
    const std::string path = in.string();
    in.string();
    finished[path] = in.string();
  }

  /// Answer to a call; signals that come before it are noted.
  Message answer(std::uint32_t call, long deadline) {
    for (;;) {
      Message message = receive(deadline);
      note_signal(message);
      if (message.reply_serial != call) continue;
      if (message.type == kReturn) return message;
      if (message.type == kError) {
        std::string text = last_error = message.error_name;
        if (starts_with(message.signature, "s")) text = Reader(message.body).string();
        throw_error("systemd: {}", printable(text));
      }
    }
  }

  Message call(const char* path, const char* interface, const char* member, const std::string& signature,
               const std::string& body, const char* destination = kService) {
    return answer(send_call(path, interface, member, signature, body, destination), now_ms() + 10000);
  }

  std::string string_property(const std::string& path, const char* interface, const char* name) {
    Writer body;
    body.string(interface);
    body.string(name);
    const Message reply = call(path.c_str(), "org.freedesktop.DBus.Properties", "Get", "ss", body.data());
    Reader in(reply.body);
    return in.signature() == "s" ? in.string() : "";
  }
};

Systemd::Systemd() : impl_(std::make_unique<Impl>()) {}
Systemd::~Systemd() = default;
Systemd::Systemd(Systemd&&) noexcept = default;
Systemd& Systemd::operator=(Systemd&&) noexcept = default;

Systemd Systemd::connect() {
  Systemd systemd;
  Impl& impl = *systemd.impl_;
  std::string tried;
  for (const auto& [path, bus] : addresses()) {
    impl.socket = connect_to(path);
    impl.bus = bus;
    if (impl.socket) break;
    tried += (tried.empty() ? "" : ", ") + path + ": " + errno_text(errno);
  }
  if (!impl.socket) throw_error("no connection to systemd ({})", tried);
  impl.authenticate();
  if (impl.bus) {
    const char* const daemon = "org.freedesktop.DBus";
    impl.call("/org/freedesktop/DBus", daemon, "Hello", "", "", daemon);
    Writer rule;
    rule.string("type='signal',sender='org.freedesktop.systemd1',member='JobRemoved'");
    impl.call("/org/freedesktop/DBus", daemon, "AddMatch", "s", rule.data(), daemon);
    impl.call(kManagerPath, kManager, "Subscribe", "", "");
  }
  return systemd;
}

void Systemd::request_scope(const ScopeRequest& request) {
  Writer body;
  body.string(request.name);
  body.string("fail");  // a unit of that name is somebody else's container
  const size_t properties = body.begin_array(8);
  const auto begin = [&](const char* name, const char* type) {
    body.align(8);
    body.string(name);
    body.signature(type);
  };
  begin("Description", "s");
  body.string(request.description);
  if (!request.slice.empty()) {
    begin("Slice", "s");
    body.string(request.slice);
  }
  begin("Delegate", "b");
  body.boolean(true);
  // Else systemd would stop the scope at shutdown before it has ended by itself.
  begin("DefaultDependencies", "b");
  body.boolean(false);
  // A scope whose last process was killed is "failed" and would stay listed for ever.
  begin("CollectMode", "s");
  body.string("inactive-or-failed");
  begin("PIDs", "au");
  const size_t pids = body.begin_array(4);
  for (const pid_t pid : request.pids) body.u32(static_cast<std::uint32_t>(pid));
  body.end_array(pids);
  body.end_array(properties);
  const size_t auxiliary = body.begin_array(8);
  body.end_array(auxiliary);
  impl_->unit = request.name;
  impl_->job.clear();
  impl_->scope_serial = impl_->send_call(kManagerPath, kManager, "StartTransientUnit", "ssa(sv)a(sa(sv))", body.data());
}

bool Systemd::wait_scope(int timeout_ms) {
  const long deadline = now_ms() + timeout_ms;
  if (impl_->job.empty()) {
    try {
      impl_->job = Reader(impl_->answer(impl_->scope_serial, deadline).body).string();
    } catch (const Error&) {
      if (impl_->last_error == "org.freedesktop.systemd1.UnitExists") return false;
      throw;
    }
  }
  for (;;) {
    if (const auto it = impl_->finished.find(impl_->job); it != impl_->finished.end()) {
      if (it->second == "done") return true;
      throw_error("systemd could not start {}: {}", impl_->unit, printable(it->second));
    }
    impl_->note_signal(impl_->receive(deadline));
  }
}

void Systemd::attach_processes(const std::string& unit, const std::string& group, const std::vector<pid_t>& pids) {
  Writer body;
  body.string(unit);
  body.string(group);
  const size_t list = body.begin_array(4);
  for (const pid_t pid : pids) body.u32(static_cast<std::uint32_t>(pid));
  body.end_array(list);
  impl_->call(kManagerPath, kManager, "AttachProcessesToUnit", "ssau", body.data());
}

void Systemd::stop_scope(const std::string& name) {
  Writer body;
  body.string(name);
  body.string("replace");
  try {
    impl_->call(kManagerPath, kManager, "StopUnit", "ss", body.data());
  } catch (const Error& error) {
    if (error.message().find("not loaded") == std::string::npos) throw;
  }
}

std::string Systemd::control_group() { return impl_->string_property(kManagerPath, kManager, "ControlGroup"); }

std::string Systemd::unit_control_group(const std::string& name) {
  Writer body;
  body.string(name);
  try {
    const Message reply = impl_->call(kManagerPath, kManager, "GetUnit", "s", body.data());
    return impl_->string_property(Reader(reply.body).string(), "org.freedesktop.systemd1.Scope", "ControlGroup");
  } catch (const Error& error) {
    log::debug("{}: {}", name, error.message());
    return "";
  }
}

void Systemd::set_properties(const std::string& name,
                             const std::vector<std::pair<std::string, std::uint64_t>>& values) {
  Writer body;
  body.string(name);
  body.boolean(true);
  const size_t properties = body.begin_array(8);
  for (const auto& [property, value] : values) {
    body.align(8);
    body.string(property);
    body.signature("t");
    body.u64(value);
  }
  body.end_array(properties);
  impl_->call(kManagerPath, kManager, "SetUnitProperties", "sba(sv)", body.data());
}

bool systemd_bus_present() {
  for (const auto& [path, bus] : addresses())
    if (::access(path.c_str(), W_OK) == 0) return true;
  return false;
}

}  // namespace kelp::sys
