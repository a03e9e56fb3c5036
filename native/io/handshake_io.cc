#include "handshake_io.h"

#include <algorithm>
#include <utility>

#include "address.h"

namespace derplane {

const char* ioOutcomeName(IoOutcome outcome) {
  switch (outcome) {
    case IoOutcome::kOk:
      return "ok";
    case IoOutcome::kClosed:
      return "closed";
    case IoOutcome::kReset:
      return "reset";
    case IoOutcome::kTimeout:
      return "timeout";
    case IoOutcome::kBudget:
      return "budget";
    case IoOutcome::kDiscarded:
      return "discarded";
    case IoOutcome::kTls:
      return "tls";
    case IoOutcome::kEvicted:
      return "evicted";
    case IoOutcome::kProxy:
      return "proxy";
  }
  return "";
}

std::shared_ptr<HandshakeIo> HandshakeIo::start(uv_loop_t* loop, std::shared_ptr<RelayCore> core, Enter enter,
                                                OnRequests on_requests, std::string& error) {
  std::shared_ptr<HandshakeIo> io(new HandshakeIo(std::move(core)));
  io->enter_ = std::move(enter);
  io->on_requests_ = std::move(on_requests);
  if (io->openHandles(loop, error)) return io;
  io->close(nullptr);
  return nullptr;
}

bool HandshakeIo::openHandles(uv_loop_t* loop, std::string& error) {
  loop_ = loop;
  if (poller_.fd() < 0 || inbox_->eventFd() < 0 || !poller_.addReadable(inbox_->eventFd(), nullptr)) {
    error = "no descriptor left for the handshake poller";
    return false;
  }
  if (!ownTimerAndPoll(loop, &timer_, &poll_, poller_.fd(), error)) return false;
  uv_poll_start(&poll_, UV_READABLE, [](uv_poll_t* handle, int, int) {
    auto* io = static_cast<HandshakeIo*>(static_cast<LoopUser*>(handle->data));
    io->enter_([io] { io->pollOnce(); });
  });
  // A pool thread that only waits for tasks is the pool's to keep alive, not ours.
  uv_unref(reinterpret_cast<uv_handle_t*>(&poll_));
  uv_unref(reinterpret_cast<uv_handle_t*>(&timer_));
  core_->addInbox(inbox_);
  return true;
}

void HandshakeIo::onClose() {
  // Only the end of the environment closes this: JavaScript of this thread can hear of no more outcomes, the
  // control plane can.
  core_->removeInbox(inbox_);
  for (const HandshakeRequest& request : inbox_->take()) drop(ConnectionTable::instance().remove(request.id));
  for (const auto& [id, job] : jobs_) {
    poller_.remove(job->connection->fd.get());
    drop(ConnectionTable::instance().remove(id));
  }
  jobs_.clear();
  deadlines_.clear();
  want_certificate_.clear();
}

void HandshakeIo::drop(const std::unique_ptr<Connection>& connection) {
  if (connection != nullptr && connection->notify) core_->emitEnd(*connection, "its handshake thread ended");
}

HandshakeIo::Job* HandshakeIo::find(uint64_t id) {
  const auto it = jobs_.find(id);
  return it == jobs_.end() ? nullptr : it->second.get();
}

bool HandshakeIo::open(uint64_t id, uint64_t timeout_ms) {
  if (closing()) return false;
  Job* job = find(id);
  if (job == nullptr) job = watch(id);
  if (job == nullptr) return false;
  setDeadline(*job, timeout_ms);
  return job->connection->beginTls();
}

HandshakeIo::Job* HandshakeIo::watch(uint64_t id) {
  Connection* connection = ConnectionTable::instance().borrow(id);
  if (connection == nullptr) return nullptr;
  auto job = std::make_unique<Job>();
  job->connection = connection;
  job->id = id;
  if (!poller_.add(connection->fd.get(), job.get())) {
    ConnectionTable::instance().giveBack(id);
    return nullptr;
  }
  if (jobs_.empty()) {
    uv_timer_start(
        &timer_,
        [](uv_timer_t* handle) {
          auto* io = static_cast<HandshakeIo*>(static_cast<LoopUser*>(handle->data));
          io->enter_([io] { io->tick(); });
        },
        kTickMs, kTickMs);
  }
  return jobs_.emplace(id, std::move(job)).first->second.get();
}

void HandshakeIo::setDeadline(Job& job, uint64_t timeout_ms) {
  deadlines_.erase({job.deadline_ms, job.id});
  job.deadline_ms = uv_now(loop_) + timeout_ms;
  job.expired = false;
  deadlines_.emplace(job.deadline_ms, job.id);
}

// Who says nothing costs no JavaScript and no TLS session.
void HandshakeIo::awaitFirstByte(uint64_t id) {
  if (Job* job = watch(id)) {
    job->mute = true;
    setDeadline(*job, core_->config.first_byte_timeout_ms);
  } else {
    // Gone, which JavaScript then finds out; or it could not be watched, which JavaScript counts.
    arrived_.push_back({id, HandshakeStart::kRequest});
  }
}

void HandshakeIo::endMute(Job& job, const char* why) {
  const uint64_t id = job.id;
  stopWatching(job);
  const auto connection = ConnectionTable::instance().remove(id);
  connection->resetOnClose();
  if (core_->log_clients.load(std::memory_order_relaxed)) core_->emitEnd(*connection, why);
}

void HandshakeIo::setTimeout(uint64_t id, uint64_t timeout_ms) {
  Job* job = find(id);
  if (job == nullptr) return;
  setDeadline(*job, timeout_ms);
  core_->budget.step(*job->connection);
}

void HandshakeIo::pollOnce() {
  const int n = poller_.wait(0);
  for (int i = 0; i < n; ++i) {
    const Poller::Event event = poller_.event(i);
    if (event.tag == nullptr) continue;  // the inbox
    onEvent(*static_cast<Job*>(event.tag), event);
  }
  for (const HandshakeRequest& request : inbox_->take()) {
    if (request.start == HandshakeStart::kRequest) {
      awaitFirstByte(request.id);
    } else {
      arrived_.push_back(request);
    }
  }
  if (!arrived_.empty()) on_requests_(std::exchange(arrived_, {}));
}

void HandshakeIo::onEvent(Job& job, const Poller::Event& event) {
  if (job.connection->evicted()) {
    if (job.mute) {
      endMute(job, "another connection needed its room");
    } else {
      finish(job, IoOutcome::kEvicted);
    }
    return;
  }
  if (job.mute) {
    if (!event.readable) return;
    job.mute = false;
    core_->budget.step(*job.connection);
    arrived_.push_back({job.id, HandshakeStart::kRequest});
    return;
  }
  if (event.writable && !job.connection->output.empty()) tryWrite(job);
  if (event.readable && job.on_read) tryRead(job);
  if (event.failed) finishEnd(job, IoOutcome::kReset);
}

void HandshakeIo::tick() {
  const uint64_t now = uv_now(loop_);
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Job& job = *find(deadlines_.begin()->second);
    deadlines_.erase(deadlines_.begin());
    if (job.mute) {
      core_->budget.countMute();
      endMute(job, "it sent nothing");
    } else {
      job.expired = true;
      finish(job, IoOutcome::kTimeout);
    }
  }
  retryCertificates();
}

void HandshakeIo::retryCertificates() {
  if (want_certificate_.empty()) return;
  const std::vector<uint64_t> ids(want_certificate_.begin(), want_certificate_.end());
  for (const uint64_t id : ids) {
    Job& job = *find(id);
    if (job.expired || !job.wants_certificate) {
      want_certificate_.erase(id);
    } else if (job.connection->tls_server->version() != job.certificates_seen) {
      want_certificate_.erase(id);
      tryRead(job);
    }
  }
}

void HandshakeIo::finish(Job& job, IoOutcome outcome) {
  finishRead(job, outcome);
  finishWrite(job, outcome);
  finishEnd(job, outcome);
}

void HandshakeIo::finishRead(Job& job, IoOutcome outcome) {
  if (!job.on_read) return;
  const OnRead done = std::move(job.on_read);
  job.on_read = nullptr;
  const Connection& connection = *job.connection;
  if (outcome == IoOutcome::kTls) {
    const std::string& why = connection.tls->failure();
    done(outcome, reinterpret_cast<const uint8_t*>(why.data()), why.size());
  } else {
    done(outcome, connection.bytes(), connection.size());
  }
}

void HandshakeIo::finishWrite(Job& job, IoOutcome outcome) {
  if (!job.on_write) return;
  const OnWrite done = std::move(job.on_write);
  job.on_write = nullptr;
  done(outcome);
}

void HandshakeIo::finishEnd(Job& job, IoOutcome outcome) {
  if (!job.on_end) return;
  const OnWrite done = std::move(job.on_end);
  job.on_end = nullptr;
  done(outcome);
}

void HandshakeIo::watchEnd(uint64_t id, OnWrite done) {
  Job* job = find(id);
  if (job == nullptr) {
    done(IoOutcome::kDiscarded);
  } else if (job->connection->evicted()) {
    done(IoOutcome::kEvicted);
  } else if (job->expired) {
    done(IoOutcome::kTimeout);
  } else {
    job->on_end = std::move(done);
  }
}

void HandshakeIo::setRemote(uint64_t id, const Address& remote) {
  if (find(id) != nullptr) ConnectionTable::instance().setRemote(id, remote);
}

std::string HandshakeIo::remote(uint64_t id) {
  const Job* job = find(id);
  return job == nullptr ? "" : addressText(job->connection->remote);
}

void HandshakeIo::read(uint64_t id, size_t min, size_t max, OnRead done) {
  Job* job = find(id);
  if (job == nullptr) {
    done(IoOutcome::kDiscarded, nullptr, 0);
    return;
  }
  if (job->connection->evicted()) {
    done(IoOutcome::kEvicted, nullptr, 0);
    return;
  }
  if (job->expired) {
    done(IoOutcome::kTimeout, nullptr, 0);
    return;
  }
  job->min = min;
  job->max = max;
  job->on_read = std::move(done);
  tryRead(*job);
}

void HandshakeIo::tryRead(Job& job) {
  Connection& connection = *job.connection;
  job.wants_certificate = false;
  if (connection.tls_server != nullptr) job.certificates_seen = connection.tls_server->version();
  while (connection.size() < job.min) {
    const Connection::ReadResult result = connection.read(job.max - std::min(job.max, connection.size()));
    noteTls(job);
    // A TLS handshake has something to say; so has an alert.
    if (!connection.output.empty() && !tryWrite(job)) return;
    switch (result) {
      case Connection::ReadResult::kBytes:
        break;
      case Connection::ReadResult::kTls:
        finishRead(job, IoOutcome::kTls);
        return;
      case Connection::ReadResult::kWantCertificate:
        awaitCertificate(job);
        return;
      case Connection::ReadResult::kNothing:
        return;
      case Connection::ReadResult::kEnd:
        finishRead(job, IoOutcome::kClosed);
        return;
      case Connection::ReadResult::kReset:
        finishRead(job, IoOutcome::kReset);
        return;
      case Connection::ReadResult::kBudget:
        finishRead(job, IoOutcome::kBudget);
        return;
      case Connection::ReadResult::kProxy:
        finishRead(job, IoOutcome::kProxy);
        return;
    }
  }
  finishRead(job, IoOutcome::kOk);
}

void HandshakeIo::noteTls(Job& job) {
  if (job.established || job.connection->tls == nullptr || !job.connection->tls->established()) return;
  job.established = true;
  core_->budget.step(*job.connection);
}

// The certificate may have come since the handshake asked: tick() looks at the version from before.
void HandshakeIo::awaitCertificate(Job& job) {
  Connection& connection = *job.connection;
  job.wants_certificate = true;
  want_certificate_.insert(job.id);
  const std::string& name = connection.tls->wanted();
  if (!connection.tls_server->askFor(name)) return;
  core_->emit({.kind = Event::Kind::kWanted, .listener = connection.listener, .text = name});
}

void HandshakeIo::consume(uint64_t id, size_t count) {
  if (Job* job = find(id)) job->connection->consume(count);
}

void HandshakeIo::write(uint64_t id, const uint8_t* bytes, size_t size, OnWrite done) {
  Job* job = find(id);
  if (job == nullptr) {
    done(IoOutcome::kDiscarded);
    return;
  }
  if (job->connection->evicted()) {
    done(IoOutcome::kEvicted);
    return;
  }
  if (job->expired) {
    done(IoOutcome::kTimeout);
    return;
  }
  if (!job->connection->write(bytes, size)) {
    done(IoOutcome::kReset);
    return;
  }
  job->on_write = std::move(done);
  tryWrite(*job);
}

void HandshakeIo::upgraded(uint64_t id) {
  if (Job* job = find(id)) job->connection->upgraded();
}

// False when the connection turned out to be gone.
bool HandshakeIo::tryWrite(Job& job) {
  switch (job.connection->send()) {
    case Connection::SendResult::kDone:
      finishWrite(job, IoOutcome::kOk);
      return true;
    case Connection::SendResult::kMore:
      return true;
    case Connection::SendResult::kReset:
      finish(job, IoOutcome::kReset);
      return false;
  }
  return false;
}

void HandshakeIo::stopWatching(Job& job) {
  poller_.remove(job.connection->fd.get());
  finish(job, IoOutcome::kDiscarded);
  deadlines_.erase({job.deadline_ms, job.id});
  want_certificate_.erase(job.id);
  jobs_.erase(job.id);
  if (jobs_.empty()) uv_timer_stop(&timer_);
}

std::unique_ptr<Connection> HandshakeIo::detach(uint64_t id) {
  if (Job* job = find(id)) stopWatching(*job);
  return ConnectionTable::instance().remove(id);
}

bool HandshakeIo::adopt(uint64_t id, Router::Adoption adoption, std::vector<uint8_t> first_output) {
  if (Job* job = find(id); job == nullptr || job->connection->evicted()) return false;
  std::unique_ptr<Connection> connection = detach(id);
  if (connection == nullptr) return false;
  adoption.id = id;
  adoption.address = connection->remote;
  adoption.number = connection->number;
  adoption.notify = connection->notify;
  adoption.not_ideal = adoption.not_ideal || connection->not_ideal;
  ShardSlot& slot = *core_->slots[core_->shardOf(adoption.key)];
  return slot.post({.kind = Mail::Kind::kAdopt,
                    .adoption = std::move(adoption),
                    .connection = std::move(connection),
                    .bytes = std::move(first_output)});
}

void HandshakeIo::serveHttp(uint64_t id, uint32_t failure, std::string malformed) {
  Job* job = find(id);
  if (job == nullptr) return;
  if (!malformed.empty()) count(failure);
  const Address address = job->connection->remote;
  const uint32_t listener = job->connection->listener;
  // From here on it waits for us.
  core_->budget.leave(*job->connection);
  stopWatching(*job);
  ConnectionTable::instance().giveBack(id);
  core_->emit(
      {.kind = Event::Kind::kHttp, .id = id, .address = address, .listener = listener, .text = std::move(malformed)});
}

void HandshakeIo::count(uint32_t failure) {
  if (failure < RelayCore::kMaxFailures) core_->failures[failure].fetch_add(1, std::memory_order_relaxed);
}

void HandshakeIo::fail(uint64_t id, uint32_t failure, bool report, std::string text) {
  const std::unique_ptr<Connection> connection = detach(id);
  if (connection == nullptr) return;  // who ended it counted it
  count(failure);
  if (!connection->notify && !report && !core_->log_clients.load(std::memory_order_relaxed)) return;
  core_->emit({.kind = Event::Kind::kFailed,
               .id = id,
               .address = connection->remote,
               .notify = connection->notify,
               .failure = failure,
               .text = std::move(text)});
}

}  // namespace derplane
