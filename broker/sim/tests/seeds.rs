//! A hundred seeds of the simulation without optimisation, so that debug assertions and overflows count, and those
//! of faults that were found. Thousands: `cargo run --release -p ringyard-sim --bin sim -- --seeds 5000`.

use protocol::v1::{CommandType, MessageType};
use sim::{Coverage, Params, run};

fn pass(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err(failure) = run(&Params::from_seed(seed), false) {
            panic!("{failure}");
        }
    }
}

// Split, so that they run beside each other.

#[test]
fn seeds_0() {
    pass(0..25);
}

#[test]
fn seeds_25() {
    pass(25..50);
}

#[test]
fn seeds_50() {
    pass(50..75);
}

#[test]
fn seeds_75() {
    pass(75..100);
}

#[test]
fn a_seed_replays_to_the_last_byte() {
    for seed in [3, 11, 24] {
        let twice = [(); 2].map(|()| run(&Params::from_seed(seed), false).expect("a seed that passes"));
        assert_eq!(twice[0], twice[1], "seed {seed}");
    }
    let [one, other] = [3, 4].map(|seed| run(&Params::from_seed(seed), false).expect("a seed that passes").trace);
    assert_ne!(one, other, "the trace says something");
}

/// A command that no client of the simulation sends, and a message that none gets, is not simulated.
#[test]
fn every_command_is_carried_out_and_every_message_got() {
    let mut coverage = Coverage::default();
    // The last ones meet gaps, pings as messages, purges, requests, tokens, sessions, and leases.
    for seed in (0..8).chain([28, 13, 30, 75]).chain(GUARDED).chain(PRESENT).chain(LEASED) {
        coverage += run(&Params::from_seed(seed), false).unwrap_or_else(|failure| panic!("{failure}")).coverage;
    }
    for command in CommandType::ALL {
        assert!(coverage.commands[command as usize] > 0, "{command:?}: no client in sim/src/client/talk.rs sends it");
    }
    for message in MessageType::ALL {
        assert!(coverage.messages[message as usize] > 0, "{message:?}: no client of the simulation gets it");
    }
}

/// Seeds whose clients have sessions and are present.
const PRESENT: [u64; 2] = [102, 121];

/// Seeds whose clients take leases, lose one, and leave wills.
const LEASED: [u64; 1] = [52];

/// Seeds with access control that meet `refresh` and `ended`.
const GUARDED: [u64; 2] = [69, 84];

/// Seeds that failed before something was put right, each named after what.
mod regressions {
    use super::pass;

    #[test]
    fn a_subscription_is_not_ended_before_its_command_is_answered() {
        pass(14..15);
    }

    #[test]
    fn the_101_comes_before_any_frame() {
        pass(6..7);
        pass(11..12);
    }

    #[test]
    fn no_http_publish_is_acknowledged_when_subscribers_are_gone() {
        pass(3..4);
        pass(7..8);
    }

    #[test]
    fn an_unsubscribe_waits_for_the_send_in_flight_and_no_longer() {
        pass(235..236);
        pass(255..256);
    }

    #[test]
    fn a_filter_gets_no_message_that_came_before_its_join_and_waited_for_other_logs() {
        pass(16440..16441);
    }

    #[test]
    fn nothing_follows_a_close_frame() {
        pass(4..6);
    }

    #[test]
    fn an_adoption_that_finds_no_room_is_counted() {
        pass(36..37);
        pass(105..106);
    }

    #[test]
    fn nothing_of_a_topics_history_comes_behind_the_answer_to_unsubscribe() {
        pass(25..27);
    }

    #[test]
    fn what_is_left_out_behind_a_snapshot_is_announced() {
        pass(45..46);
    }

    #[test]
    fn a_position_ahead_of_the_shards_log_is_not_sent_again() {
        pass(108..109);
    }

    #[test]
    fn a_subscription_that_ends_hands_over_to_one_that_has_begun() {
        pass(80..81);
        pass(188..189);
    }

    #[test]
    fn a_topic_that_loses_its_state_may_be_forgotten() {
        pass(90..91);
        pass(127..128);
    }

    #[test]
    fn the_removal_of_a_key_that_was_too_old_reaches_who_comes_back() {
        pass(391..392);
    }

    #[test]
    fn a_full_outbox_may_end_a_log_while_its_join_is_answered() {
        pass(3543..3544);
    }

    #[test]
    fn who_takes_anothers_place_in_a_log_waits_for_its_round() {
        pass(511..512);
    }

    #[test]
    fn who_skips_learns_of_every_epoch_that_began() {
        pass(242..243);
        pass(409..410);
    }

    #[test]
    fn a_topic_whose_messages_are_conflated_takes_no_snapshot() {
        pass(142..143);
    }

    #[test]
    fn a_retained_message_is_shown_where_its_replay_has_no_room() {
        pass(1079..1080);
    }

    #[test]
    fn an_unsubscribe_behind_a_backlog_sends_what_other_subscriptions_hold() {
        pass(1458..1459);
        pass(1820..1821);
    }

    #[test]
    fn an_end_in_its_grace_is_not_brought_forward_by_a_revocation_of_others() {
        pass(199..200);
    }

    #[test]
    fn an_answer_comes_behind_the_messages_that_wait_for_other_logs() {
        pass(3478..3479);
    }

    #[test]
    fn what_a_topic_forgot_before_it_answered_is_in_the_log() {
        pass(7669..7670);
    }

    #[test]
    fn a_request_ends_within_the_turn_in_which_its_time_passes() {
        pass(713..714);
        pass(441..442);
    }

    #[test]
    fn a_connection_that_was_never_answered_is_nobodys() {
        pass(5857..5858);
    }

    #[test]
    fn who_has_lost_its_session_is_no_member_by_another() {
        pass(102..103);
    }

    #[test]
    fn what_could_not_be_published_is_not_what_a_member_says_of_itself() {
        pass(596..597);
        pass(1400..1401);
    }

    #[test]
    fn a_departure_is_no_refusal_where_another_finds_no_room_to_be_listed() {
        pass(898..899);
        pass(1223..1224);
    }
}
