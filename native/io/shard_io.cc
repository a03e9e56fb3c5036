// A shard's sockets: what is read becomes frames for the router, what the router queued is written.
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>

#include "shard.h"

namespace derplane {

// --- reading -------------------------------------------------------------------------------------------------------

void Shard::read(Client& client) {
  // A connection whose next frame waits is read again when that is over.
  if (client.closing || client.waits() || !router_.mayRead(client)) return;
  ensureRoom(readRoom(client));
  bool full = false;
  const bool part_of_frame = client.carry != nullptr && client.carry->size >= kFrameHeaderSize;
  const ssize_t n = part_of_frame ? readBehindCarry(client, full) : readIntoArena(client, full);
  router_.counters().add(Counter::reads);
  if (client.closing) return;
  if (n == 0) {
    router_.close(client, CloseReason::eof);
  } else if (n < 0) {
    if (errno == EINTR || (errno == EAGAIN && full)) {
      makeHungry(client);
    } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
      router_.close(client, CloseReason::reset);
    }
  } else if (full || client.got_hangup) {
    // Edge-triggered: unless the kernel had less than asked for, no event reports the rest.
    makeHungry(client);
  }
}

// One read. -1 with EAGAIN also when what came is not a whole TLS record yet; `full`: there may be more.
ssize_t Shard::receive(Client& client, iovec* iov, int count, bool& full) {
  if (client.tls != nullptr) return receiveSealed(client, iov, count, full);
  size_t room = 0;
  for (int i = 0; i < count; ++i) room += iov[i].iov_len;
  const ssize_t n =
      count == 1 ? ::recv(client.fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT) : ::readv(client.fd, iov, count);
  full = n > 0 && static_cast<size_t>(n) == room;
  return n;
}

// The usual read. Less than a header may have been left over; it is put in front.
ssize_t Shard::readIntoArena(Client& client, bool& full) {
  Arena& arena = router_.arena();
  const uint32_t room = router_.frontRoom(client);
  uint8_t* at = arena.end() + room;
  uint32_t before = 0;
  if (client.carry != nullptr) {
    before = client.carry->size;
    std::memcpy(at, client.carry->bytes(), before);
  }
  iovec iov{at + before, readRoom(client) - before};
  const ssize_t n = receive(client, &iov, 1, full);
  if (n <= 0) return n;
  if (before > 0) router_.retire(detachCarry(client));
  const uint32_t size = before + static_cast<uint32_t>(n);
  arena.take(room + size);
  consume(client, at, size, room);
  return n;
}

// Part of a frame is held: the rest of it goes straight behind that part, what follows into the arena.
ssize_t Shard::readBehindCarry(Client& client, bool& full) {
  const uint32_t needed = Router::frameBytesNeeded(client.carry->bytes(), client.carry->size);
  // Room grows with what really came, so that a header alone cannot claim memory.
  if (!growCarry(client, std::min(needed, std::max(BlockPool::kSmall, 2 * client.carry->size)))) {
    router_.close(client, CloseReason::no_memory);
    return -1;
  }
  Block* carry = client.carry;
  const uint32_t room = std::min(carry->capacity, needed) - carry->size;
  const bool whole = carry->size + room == needed;
  Arena& arena = router_.arena();
  const uint32_t front = router_.frontRoom(client);
  uint8_t* at = arena.end() + front;
  iovec iov[2] = {{carry->bytes() + carry->size, room}, {at, readRoom(client)}};
  // Bytes behind the carry's room need a place only if the frame ends in it; opened records bring them all the same.
  const ssize_t n = receive(client, iov, whole || client.tls != nullptr ? 2 : 1, full);
  if (n <= 0) return n;
  const auto got = static_cast<uint32_t>(n);
  const uint32_t to_carry = std::min(got, room);
  const uint32_t rest = got - to_carry;
  arena.take(front + rest);  // before anything else may take what lies there
  carry->size += to_carry;
  router_.counters().add(Counter::held_bytes, to_carry);
  if (carry->size < needed) {
    if (rest == 0) return n;
    hold(client, at, rest);
    // Opened records do not end where the carry's room did: the frame may be whole now.
    if (!client.closing && client.carry->size >= needed) consumeCarry(client);
    return n;
  }
  consumeCarry(client);
  if (rest == 0 || client.closing) return n;
  if (client.waits()) {
    hold(client, at, rest);
  } else {
    consume(client, at, rest, front);
  }
  return n;
}

// `data` stays until the turn's end: packets in it are sent from where they are.
void Shard::consume(Client& client, uint8_t* data, uint32_t size, uint32_t room) {
  const ParseResult result = router_.consume(client, data, size, room);
  if (result.status == ParseStatus::kClosed) return;
  if (result.status == ParseStatus::kThrottled) {
    throttled_.push_back(&client);
    endIfHungUp(client);
  }
  if (result.consumed == size) return;
  hold(client, data + result.consumed, size - result.consumed);
}

// A connection that is not read shows neither its end nor its failure. A client that waits for its receive limit and
// hangs up is gone at once, and with it what it sent beyond the limit; for a ring or a flood the wait is short, and
// what came before the end is still handled.
void Shard::endIfHungUp(Client& client) {
  if (client.closing || !client.got_hangup || client.throttled_until_ms == 0) return;
  router_.close(client, CloseReason::eof);
}

void Shard::consumeCarry(Client& client) {
  Block* block = detachCarry(client);
  router_.retire(block);
  consume(client, block->bytes(), block->size);
}

// Keeps bytes until more come, or until a ring has room.
void Shard::hold(Client& client, const uint8_t* data, uint32_t size) {
  const uint32_t before = client.carry == nullptr ? 0 : client.carry->size;
  if (!growCarry(client, before + size)) {
    router_.close(client, CloseReason::no_memory);
    return;
  }
  std::memcpy(client.carry->bytes() + before, data, size);
  client.carry->size = before + size;
  router_.counters().add(Counter::held_bytes, size);
}

bool Shard::growCarry(Client& client, uint32_t capacity) {
  Block* old = client.carry;
  if (old != nullptr && old->capacity >= capacity) return true;
  BlockPool& blocks = router_.queues().blocks;
  Block* block = blocks.take(capacity);
  if (block == nullptr) return false;
  if (old != nullptr) {
    std::memcpy(block->bytes(), old->bytes(), old->size);
    block->size = old->size;
    blocks.give(old);
  }
  client.carry = block;
  return true;
}

Block* Shard::detachCarry(Client& client) {
  Block* block = client.carry;
  client.carry = nullptr;
  router_.counters().add(Counter::held_bytes, -int64_t{block->size});
  return block;
}

void Shard::makeHungry(Client& client) {
  if (client.hungry) return;
  client.hungry = true;
  hungry_.push_back(&client);
}

// --- writing -------------------------------------------------------------------------------------------------------

void Shard::flush(Client& client) {
  QueueShared& queues = router_.queues();
  if (client.closing) {
    client.queue.clear(queues, DropReason::gone_disconnected);
    return;
  }
  if (client.watching) router_.observePresence(client);
  uint32_t frames_done = 0;
  queues.late_frames = 0;
  while (!client.stalled && (!client.queue.empty() || hasSealed(client))) {
    const ssize_t n = client.tls == nullptr ? writePlain(client) : writeSealed(client);
    if (n < 0) {
      router_.close(client, CloseReason::write_error);
      client.queue.clear(queues, DropReason::write_error);
      return;
    }
    if (n > 0) frames_done += client.queue.advance(queues, static_cast<uint64_t>(n));
  }
  if (client.queue.empty() && !hasSealed(client)) {
    unstall(client);
  } else {
    keepRest(client, frames_done > 0);
    frames_done += queues.late_frames;
  }
  countFrames(client, frames_done);
}

// As derper counts: links and ServerInfo not at all, a batch of presence changes as one frame.
void Shard::countFrames(Client& client, uint32_t frames) {
  const uint32_t uncounted = std::min(frames, client.uncounted_frames);
  client.uncounted_frames -= uncounted;
  if (frames > uncounted && client.link == nullptr) router_.counters().observeWrite(frames - uncounted);
}

// One write. Returns the bytes that are taken, after which `stalled` says whether the kernel takes more; -1 when the
// socket failed.
ssize_t Shard::writePlain(Client& client) {
  iovec iov[kMaxIov];
  const uint32_t count = client.queue.gather(router_.queues(), iov, kMaxIov);
  size_t total = 0;
  for (uint32_t i = 0; i < count; ++i) total += iov[i].iov_len;
  msghdr message{};
  message.msg_iov = iov;
  message.msg_iovlen = count;
  const ssize_t n = ::sendmsg(client.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  router_.counters().add(Counter::writes);
  if (n >= 0) {
    client.stalled = static_cast<size_t>(n) < total;
    return n;
  }
  if (errno == EINTR) return 0;
  client.stalled = errno == EAGAIN || errno == EWOULDBLOCK;
  return client.stalled ? 0 : -1;
}

// The write deadline runs from the last frame that was begun: bytes of the same frame do not extend it.
void Shard::keepRest(Client& client, bool renew_deadline) {
  if (!client.queue.spill(router_.queues())) {
    router_.close(client, CloseReason::control_overflow);
    return;
  }
  uint64_t timeout = client.mesh ? core_->config.mesh_write_timeout_ms : core_->config.write_timeout_ms;
  if (client.link != nullptr) timeout = kLinkWriteTimeoutMs;
  if (timeout == 0 || !(client.queue.hasBacklog() || hasSealed(client))) return;
  if (!client.in_stall_list) {
    client.in_stall_list = true;
    client.stall_prev = nullptr;
    client.stall_next = stalled_;
    if (stalled_ != nullptr) stalled_->stall_prev = &client;
    stalled_ = &client;
    renew_deadline = true;
  }
  if (renew_deadline) client.write_deadline_ms = router_.now() + timeout;
}

void Shard::unstall(Client& client) {
  if (!client.in_stall_list) return;
  client.in_stall_list = false;
  (client.stall_prev == nullptr ? stalled_ : client.stall_prev->stall_next) = client.stall_next;
  if (client.stall_next != nullptr) client.stall_next->stall_prev = client.stall_prev;
}

void Shard::closeStalled() {
  std::vector<Client*> late;
  for (Client* client = stalled_; client != nullptr; client = client->stall_next) {
    if (router_.now() >= client->write_deadline_ms) late.push_back(client);
  }
  for (Client* client : late) {
    if (!client->closing) router_.close(*client, CloseReason::write_timeout);
  }
}

}  // namespace derplane
