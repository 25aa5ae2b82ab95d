#include "sys/net_device.h"

#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <functional>

#include "base/error.h"
#include "base/owned.h"

namespace kelp::sys {
namespace {

/// A request under construction: netlink header, the family's own header, attributes.
class Request {
 public:
  template <typename Header>
  Request(std::uint16_t type, unsigned flags, const Header& header) {
    nlmsghdr top{};
    top.nlmsg_type = type;
    top.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
    top.nlmsg_seq = 1;
    append(&top, sizeof top);
    append(&header, sizeof header);
  }
  void add(std::uint16_t type, const void* data, size_t size) {
    rtattr attribute{};
    attribute.rta_type = type;
    attribute.rta_len = static_cast<std::uint16_t>(RTA_LENGTH(size));
    append(&attribute, sizeof attribute);
    append(data, size);
  }
  void add(std::uint16_t type, const std::string& bytes) { add(type, bytes.data(), bytes.size()); }
  const std::string& finish() {
    const auto length = static_cast<std::uint32_t>(text_.size());
    std::memcpy(text_.data(), &length, sizeof length);
    return text_;
  }

 private:
  void append(const void* data, size_t size) {
    text_.append(static_cast<const char*>(data), size);
    text_.resize(NLMSG_ALIGN(text_.size()));
  }
  std::string text_;
};

/// Sends it and reads to the end of the answer. `each` gets the messages that are neither an end nor an error.
/// returns  0 or the kernel's errno
int exchange(Request& request, const std::function<void(const nlmsghdr&)>& each = {}) {
  const Fd link(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!link) throw_errno("make a route socket");
  const std::string& text = request.finish();
  if (::send(link.get(), text.data(), text.size(), 0) < 0) throw_errno("ask the kernel for an interface");
  alignas(nlmsghdr) char buffer[32768];
  for (;;) {
    const ssize_t got = ::recv(link.get(), buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("read the kernel's answer on an interface");
    auto rest = static_cast<unsigned>(got);
    for (auto* message = reinterpret_cast<nlmsghdr*>(buffer); NLMSG_OK(message, rest);
         message = NLMSG_NEXT(message, rest)) {
      if (message->nlmsg_type == NLMSG_DONE) return 0;
      if (message->nlmsg_type == NLMSG_ERROR) return -static_cast<const nlmsgerr*>(NLMSG_DATA(message))->error;
      if (each) each(*message);
    }
  }
}

std::string bytes_of(const rtattr* attribute) {
  return {static_cast<const char*>(RTA_DATA(attribute)), RTA_PAYLOAD(attribute)};
}

/// Adds the address in `message` unless the move would not lose it, or the kernel makes it anew by itself.
void note_address(const nlmsghdr& message, int index, std::vector<NetAddress>& addresses) {
  if (message.nlmsg_type != RTM_NEWADDR) return;
  const auto* info = static_cast<const ifaddrmsg*>(NLMSG_DATA(&message));
  if (info->ifa_index != static_cast<unsigned>(index) || info->ifa_scope != RT_SCOPE_UNIVERSE ||
      (info->ifa_flags & IFA_F_PERMANENT) == 0)
    return;
  NetAddress address;
  address.family = info->ifa_family;
  address.prefix = info->ifa_prefixlen;
  auto rest = static_cast<unsigned>(message.nlmsg_len - NLMSG_LENGTH(sizeof *info));
  for (const rtattr* attribute = IFA_RTA(info); RTA_OK(attribute, rest); attribute = RTA_NEXT(attribute, rest)) {
    if (attribute->rta_type == IFA_LOCAL) address.local = bytes_of(attribute);
    if (attribute->rta_type == IFA_ADDRESS) address.peer = bytes_of(attribute);
    if (attribute->rta_type == IFA_BROADCAST) address.broadcast = bytes_of(attribute);
  }
  if (address.local.empty()) address.local = address.peer;
  addresses.push_back(std::move(address));
}

int index_of(const std::string& name) {
  const unsigned index = ::if_nametoindex(name.c_str());
  if (index == 0) throw_errno("find the network device {}", name);
  return static_cast<int>(index);
}

}  // namespace

NetDevice net_device(const std::string& name) {
  NetDevice device;
  device.index = index_of(name);
  Request request(RTM_GETADDR, NLM_F_DUMP, ifaddrmsg{});
  const int failed =
      exchange(request, [&](const nlmsghdr& message) { note_address(message, device.index, device.addresses); });
  if (failed != 0) throw SysError("list the addresses of " + name, failed);
  return device;
}

void move_net_device(const NetDevice& device, int netns_fd, const std::string& new_name) {
  ifinfomsg link{};
  link.ifi_index = device.index;
  Request request(RTM_NEWLINK, NLM_F_ACK, link);
  request.add(IFLA_NET_NS_FD, &netns_fd, sizeof netns_fd);
  request.add(IFLA_IFNAME, new_name.c_str(), new_name.size() + 1);
  if (const int failed = exchange(request); failed != 0)
    throw SysError("move it to the container as " + new_name, failed);
}

void bring_up_net_device(const std::string& name, const std::vector<NetAddress>& addresses) {
  const int index = index_of(name);
  for (const NetAddress& address : addresses) {
    ifaddrmsg info{};
    info.ifa_family = address.family;
    info.ifa_prefixlen = address.prefix;
    info.ifa_flags = IFA_F_PERMANENT;
    info.ifa_scope = RT_SCOPE_UNIVERSE;
    info.ifa_index = static_cast<unsigned>(index);
    Request request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, info);
    request.add(IFA_LOCAL, address.local);
    request.add(IFA_ADDRESS, address.peer);
    if (!address.broadcast.empty()) request.add(IFA_BROADCAST, address.broadcast);
    if (const int failed = exchange(request); failed != 0 && failed != EEXIST)
      throw SysError("give an address back to " + name, failed);
  }
  ifinfomsg link{};
  link.ifi_index = index;
  link.ifi_flags = IFF_UP;
  link.ifi_change = IFF_UP;
  Request request(RTM_NEWLINK, NLM_F_ACK, link);
  if (const int failed = exchange(request); failed != 0) throw SysError("set " + name + " up", failed);
}

}  // namespace kelp::sys
