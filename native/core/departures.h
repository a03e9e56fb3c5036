// Who must hear when a key leaves: for each sender the clients of this shard that received from it. So the cost of
// a departure follows the number of its receivers, and a key that never sent anything to anyone here costs a look-up.
//
// A client knows its senders (SenderSet), and a sender here the slots of its receivers. Only the former is exact: a
// slot whose client does not know the sender is passed over, so a client that leaves need not be looked for in long
// lists.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "client.h"
#include "counters.h"
#include "step_table.h"

namespace derplane {

class Departures {
 public:
  // Of senders and receivers that the shard knows together: about 30 to 50 bytes each. Beyond it new ones are counted
  // and forgotten: their receivers do not hear that they left.
  static constexpr uint64_t kMaxPairs = 4 << 20;
  // Keys whose departure is still to be announced. Beyond this, clients with many senders no longer hear of keys that
  // no one else here knows.
  static constexpr size_t kMaxWaiting = 64 << 10;

  // `slots`: the shard's clients.
  Departures(const std::vector<Client*>& slots, Counters& counters) : slots_(slots), counters_(counters) {}
  Departures(const Departures&) = delete;
  Departures& operator=(const Departures&) = delete;
  ~Departures();

  // A packet of `sender` (the hash of its key) is delivered.
  void heard(Client& receiver, uint64_t sender) {
    if (!receiver.senders.isLatest(sender)) note(receiver, sender);
  }
  // A client left its slot.
  void receiverLeft(Client& receiver);
  // A key left the region. step() tells its receivers.
  void keyLeft(const Key& key, uint64_t hash);

  // Tells up to `budget` receivers: `tell(Client&, const Key&)`. True when there was anyone to tell or anything to do.
  template <typename Tell>
  bool step(uint32_t budget, Tell tell) {
    bool any = forgetLeft();
    any = purge() || any;
    any = senders_.step(kPlacesPerStep) || any;
    if (waiting_.empty()) return any;
    while (budget > 0 && !waiting_.empty()) {
      if (!telling_many_ && !tellReceivers(budget, tell)) break;
      if (!tellMany(budget, tell)) break;
      waiting_.pop_front();
      if (budget > 0) --budget;
    }
    return true;
  }

  // Keys whose receivers have not heard yet.
  size_t waiting() const { return waiting_.size(); }
  uint64_t pairs() const { return pairs_; }
  // Lists that are to lose the slots of clients that left.
  size_t purging() const { return purges_.size(); }
  // Places in a sender's list of receivers, those of receivers that left among them.
  uint32_t listed(uint64_t hash) const {
    const Sender* sender = find(SenderSet::nonZero(hash));
    return sender == nullptr ? 0 : sender->listed;
  }
  // What is wrong between the lists and the clients, or null.
  const char* check() const;

 private:
  static constexpr uint32_t kPlacesPerStep = 4096;
  // Places of lists that one step of a purge looks at, a client each; and more for each receiver that left since the
  // step before, so that lists cannot grow faster than they are purged.
  static constexpr uint32_t kPurgedPerStep = 1024;
  static constexpr uint32_t kPurgedPerRemoval = 2;
  // Lists up to this length are searched for slots that stand twice. Longer ones mark what they found in a bit for each
  // client, which would cost more than the list when there are many short ones.
  static constexpr uint32_t kSearched = 32;
  // A client that leaves with more senders than this is taken out of their lists in steps.
  static constexpr uint32_t kForgottenAtOnce = 16;
  static constexpr uint32_t kFew = 2;
  static constexpr uint32_t kMaxListed = UINT32_MAX >> 1;

  // 32 bytes for most senders: they have one or two receivers.
  struct Sender {
    uint64_t hash;  // 0: no sender
    union {
      uint32_t few[kFew];
      uint32_t* many;  // when `listed` is over kFew; as large as capacityFor(listed)
    };
    uint32_t live;     // clients that know it
    uint32_t listed;   // slots of clients that know it, and of some that left
    uint32_t leaving;  // so many slots of the list hear of it, or will; 0: it does not leave
    // It left again meanwhile: the slots up to this one hear of it in their own turn; 0: none.
    uint32_t leaving_again : 31;
    uint32_t purging : 1;  // it is in purges_

    uint32_t* slots() { return listed > kFew ? many : few; }
  };
  static_assert(sizeof(Sender) == 32);
  struct Traits {
    using Entry = Sender;
    static constexpr size_t kMaxLoadQuarters = 3;
    bool isEmpty(const Sender& sender) const { return sender.hash == 0; }
    uint64_t hashOf(const Sender& sender) const { return sender.hash; }
  };
  struct Waiting {
    Key key;
    uint64_t hash;
  };
  // Of a client that left: its senders are still to forget it.
  struct Left {
    SenderSet senders;
    uint32_t next = 0;  // see SenderSet::forEachFrom
  };

  static uint32_t capacityFor(uint32_t listed) { return listed <= kFew ? kFew : std::bit_ceil(listed); }

  Sender* find(uint64_t hash) const {
    return senders_.find(hash, [hash](const Sender& sender) { return sender.hash == hash; });
  }
  void note(Client& receiver, uint64_t sender);
  void makeMany(Client& receiver, uint64_t sender);
  void addReceiver(uint64_t hash, uint32_t slot);
  void removeReceiver(uint64_t hash);
  void setSlots(Sender& sender, const uint32_t* slots, uint32_t count);
  bool forgetLeft();
  void purgeIfSparse(Sender& sender);
  bool purge();
  uint32_t purgeFirst(uint32_t budget);
  bool isSeen(uint32_t slot);
  void eraseIfUnused(Sender* sender);
  void endLeaving(Sender* sender);

  // False when the budget ends before the list does.
  template <typename Tell>
  bool tellReceivers(uint32_t& budget, Tell tell) {
    const Waiting& front = waiting_.front();
    Sender* sender = find(front.hash);
    if (sender != nullptr) {
      for (; told_ < sender->leaving; ++told_, --budget) {
        if (budget == 0) return false;
        Client* client = slots_[sender->slots()[told_]];
        if (client == nullptr || !client->senders.remove(front.hash)) continue;
        --sender->live;
        --pairs_;
        tell(*client, front.key);
      }
      endLeaving(sender);
    }
    told_ = 0;
    next_many_ = many_.front();
    telling_many_ = true;
    return true;
  }

  template <typename Tell>
  bool tellMany(uint32_t& budget, Tell tell) {
    for (; next_many_ != nullptr; --budget) {
      if (budget == 0) return false;
      Client& client = *next_many_->client;
      next_many_ = many_.next(*next_many_);
      tell(client, waiting_.front().key);
    }
    telling_many_ = false;
    return true;
  }

  const std::vector<Client*>& slots_;
  Counters& counters_;
  StepTable<Traits> senders_;
  uint64_t pairs_ = 0;
  std::deque<Left> left_;
  std::deque<uint64_t> purges_;  // senders whose lists are to be purged
  uint32_t purge_from_ = 0;      // of the first of them: places below were looked at ...
  uint32_t purge_to_ = 0;        // ... and what stays of them lies below this place
  bool purge_searches_ = false;  // its list is short: no bits
  uint32_t removed_ = 0;         // receivers since the last purge
  std::vector<uint64_t> seen_;   // a bit for each slot that it found
  std::deque<Waiting> waiting_;
  uint32_t told_ = 0;                 // of the first that waits: slots of its list
  bool telling_many_ = false;         // of the first that waits: the clients with many senders are next
  ManySenders* next_many_ = nullptr;  // the next of them
  LinkedList<ManySenders, &ManySenders::links> many_;  // clients with many senders
};

}  // namespace derplane
