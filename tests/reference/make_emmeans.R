## Marginal means, slopes and contrasts by emmeans of the unbalanced data in emmeans.csv, written to emmeans.json:
##     Rscript tests/reference/make_emmeans.R
## Needs R with lme4, lmerTest, pbkrtest, nlme, emmeans and jsonlite. The data are made here as well.
## `gap` leaves out the cell arm = "t", dose = 5. Slopes are forward differences in emmeans: a small step is asked
## for. Prior weights go without Kenward-Roger, where pbkrtest ignores them.
suppressMessages({library(lmerTest); library(nlme); library(emmeans); library(jsonlite)})
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
set.seed(19)
n <- 144
data <- data.frame(id = rep(1:18, each = 8), visit = rep(c("v1", "v2", "v3", "v4"), 36), subject = rep(1:36, each = 4))
data$arm <- ifelse(data$id %% 3 == 0, "t", "c")
data$dose <- sample(c(1, 2, 5), n, TRUE, c(.5, .3, .2))
data$site <- ifelse(data$arm == "c", sample(c("p", "q"), n, TRUE), sample(c("r", "s", "w"), n, TRUE, c(.5, .3, .2)))
data$sex <- rbinom(n, 1, .4)
data$x <- round(1 + rgamma(n, 4), 3)
data$w <- round(runif(n, .5, 2), 3)
data$y <- round(10 + .3 * data$x + (data$arm == "t") * data$dose + match(data$site, letters) / 9 +
                rnorm(18)[data$id] + rnorm(n), 4)
data$z <- round(exp(data$y / 6), 5)
data <- data[-sample(n, 14), ]
write.csv(data, file.path(here, "emmeans.csv"), row.names = FALSE)
for (name in c("visit", "arm", "site", "id")) data[[name]] <- factor(data[[name]])
control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 1e-3, rhoend = 1e-12, maxfun = 1e5))

plain <- function(object, ...) {
  table <- as.data.frame(summary(object, infer = c(TRUE, TRUE), ...))
  from <- c("emmean", ".*\\.trend", "response", "ratio", "lower\\.CL", "upper\\.CL", "asymp\\.LCL", "asymp\\.UCL",
            "SE", "[tz]\\.ratio", "p\\.value")
  to <- c(rep("estimate", 4), "lower", "upper", "lower", "upper", "se", "t", "p")
  for (j in seq_along(from)) names(table) <- sub(paste0("^", from[j], "$"), to[j], names(table))
  lapply(table, function(column) if (is.factor(column)) as.character(column) else column)
}

## what: list of (name, emmeans' arguments), contrasts: list of (method, adjust)
analyse <- function(formula, gap = FALSE, ddf = "kenward-roger", weights = NULL, of, fit = NULL) {
  frame <- if (gap) droplevels(subset(data, !(arm == "t" & dose == 5))) else data
  emm_options(lmer.df = ddf)
  environment(formula) <- environment()
  model <- if (is.null(fit)) suppressMessages(
    eval(bquote(lmer(.(formula), frame, weights = .(if (!is.null(weights)) as.name(weights)), control = control))))
    else fit
  results <- lapply(of, function(one) {
    kind <- if (is.null(one$var)) emmeans else emtrends
    means <- suppressMessages(do.call(kind, c(list(model), one$args, list(data = frame), if (!is.null(one$mode)) list(mode = one$mode),
                                              if (!is.null(one$var)) list(var = one$var, delta.var = 1e-6))))
    view <- if (is.null(one$view)) list() else one$view
    if (isTRUE(view$bias.adjust)) view$sigma <- sqrt(sum(as.data.frame(VarCorr(model))$vcov))
    contrasts <- lapply(one$contrasts, function(c) {
      own <- do.call(contrast, c(list(means, if (is.null(c$weights)) c$method else c$weights, adjust = c$adjust)))
      c(c, list(table = do.call(plain, c(list(own), view))))
    })
    joint <- if (isTRUE(one$joint)) {
      table <- as.data.frame(joint_tests(means)); lapply(table, function(k) if (is.factor(k)) as.character(k) else k)
    }
    list(var = one$var, args = one$args, view = one$view, means = do.call(plain, c(list(means), view)),
         contrasts = contrasts, joint = joint)
  })
  list(formula = paste(deparse(formula), collapse = ""), gap = gap, ddf = ddf, weights = weights,
       results = results)
}
m <- function(..., contrasts = NULL, view = NULL, joint = FALSE, mode = NULL, var = NULL)
  list(args = list(...), contrasts = contrasts, view = view, joint = joint, mode = mode, var = var)
k <- function(method, adjust, weights = NULL) list(method = method, adjust = adjust, weights = weights)
satt <- "satterthwaite"
every <- list(k("pairwise", "tukey"), k("revpairwise", "bonferroni"), k("trt.vs.ctrl", "mvt"), k("consec", "mvt"),
  k("poly", "none"), k("eff", "fdr"), k("del.eff", "holm"), k("mean_chg", "sidak"), k("pairwise", "scheffe"),
  k("pairwise", "mvt"), k("custom", "sidak", list(first = c(1, -1, 0), second = c(.5, .5, -1))))

out <- list(
  interaction = analyse(y ~ arm * factor(dose) + x + (1 | id), of = list(
    m("dose", contrasts = every), m(c("arm", "dose"), joint = TRUE, contrasts = list(k("consec", "tukey"))),
    m("dose", by = "arm", contrasts = list(k("pairwise", "tukey"), k("trt.vs.ctrl", "none"))),
    m("arm", at = list(x = c(3, 7), dose = c(1, 5))), m("1"))),
  covariates = analyse(y ~ arm * x + sex + poly(x, 2) + (1 | id), ddf = satt, of = list(
    m("arm", by = "sex"), m("sex", contrasts = list(k("pairwise", "tukey"))), m("x", by = "arm", at = list(x = c(4, 6.5))),
    m("arm", var = "x", contrasts = list(k("pairwise", "tukey"))), m("1", var = "x", at = list(x = c(3, 7))))),
  slopes = analyse(y ~ site + log(x) * sex + (x | id), of = list(
    m("site", contrasts = list(k("pairwise", "holm"))), m("sex", var = "x"))),
  unbalanced = analyse(y ~ arm + factor(dose) + visit + sex + (1 | id), of = list(
    m("visit", contrasts = list(k("consec", "sidak"), k("poly", "fdr"))), m("arm", weights = "proportional"),
    m("arm", weights = "outer"), m("arm", weights = "cells"), m("visit", weights = "flat"),
    m("dose", by = "arm", weights = "cells"), m("visit", weights = "proportional", at = list(dose = c(1, 2))))),
  nested = analyse(y ~ arm / site + factor(dose) + (1 | id), ddf = satt, of = list(
    m("site", contrasts = list(k("pairwise", "tukey"))), m("arm"), m("arm", weights = "proportional"),
    m("dose", weights = "proportional"), m("dose", weights = "cells"), m("dose"),
    m("site", by = "arm", contrasts = list(k("pairwise", "tukey"), k("eff", "fdr"))))),
  nested_by_formula = analyse(y ~ arm / factor(dose) + (1 | id), of = list(
    m("dose", contrasts = list(k("pairwise", "sidak"))), m("arm"))),
  gap = analyse(y ~ arm * factor(dose) + x + (1 | id), gap = TRUE, of = list(
    m(c("arm", "dose"), contrasts = list(k("pairwise", "tukey"), k("consec", "bonferroni")), joint = TRUE),
    m("arm", contrasts = list(k("pairwise", "tukey"))), m("dose", contrasts = list(k("pairwise", "tukey"))),
    m("dose", by = "arm", contrasts = list(k("trt.vs.ctrl", "sidak"))), m("arm", weights = "cells"))),
  logarithm = analyse(log(z) ~ arm * visit + (1 | id), of = list(
    m("visit", view = list(type = "response"), contrasts = list(k("pairwise", "tukey"), k("consec", "none"))),
    m("visit", by = "arm", view = list(type = "response", bias.adjust = TRUE)), m("arm"))),
  root = analyse(sqrt(z) ~ arm + visit + (1 | id), ddf = satt, of = list(
    m("visit", view = list(type = "response")), m("arm", view = list(type = "response", bias.adjust = TRUE)))),
  offsets = analyse(y ~ arm + visit + offset(0.5 * x) + (1 | id), weights = "w", ddf = satt, of = list(
    m("arm", contrasts = list(k("pairwise", "tukey"))), m("visit", offset = 1, contrasts = list(k("eff", "bonferroni"))))),
  visits = analyse(y ~ arm * visit + x, fit = gls(y ~ arm * visit + x, data,
      correlation = corSymm(form = ~ as.integer(visit) | subject), weights = varIdent(form = ~ 1 | visit),
      control = glsControl(tolerance = 1e-12, msTol = 1e-14, msMaxIter = 1000, maxIter = 200)), ddf = "normal", of = list(
    m("arm", by = "visit", mode = "asymptotic", contrasts = list(k("revpairwise", "none"))),
    m("visit", mode = "asymptotic", contrasts = list(k("pairwise", "tukey"))))))
write(toJSON(out, auto_unbox = TRUE, digits = NA, na = "null", null = "null"), file.path(here, "emmeans.json"))
