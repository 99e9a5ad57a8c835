trigger PenstockOpportunityCreated on Opportunity (after insert) {
    // A callout is not allowed here, and must not hold up the user's save: the job runs after the commit.
    System.enqueueJob(new PenstockOpportunitySender(Trigger.newMap.keySet()));
}
